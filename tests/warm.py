"""Python with everything loaded: a server that forks a process for each command.

A start of `p2f` takes ten seconds of imports, and the tests of the documentation run dozens of
commands. ``python -IS tests/warm.py SOCKET -m p2f_lib.cli pose photo.jpg --out poses.csv``, or with
a file in place of ``-m MODULE``, hands its words, folder, environment and streams to the server
behind SOCKET and ends with the exit status of the command.
"""

import json
import os
import signal
import socket
import sys


def serve(path: str) -> None:
    """Load the library and the released network, say so on standard output, serve for ever."""
    import multiprocessing

    import cv2
    import torch.distributed.run

    # A machine of one core: threads don't come along into a fork, further processes start cold.
    os.cpu_count = multiprocessing.cpu_count = lambda: 1
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    from p2f_lib import cli, export, recipe, tracker  # noqa: F401
    from p2f_lib.reconstruction import Reconstructor
    from p2f_lib.robustness import portraits

    image, box = portraits()[0]
    Reconstructor.from_pretrained(device="cpu").reconstruct(image, box)  # compiles what is compiled
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the commands
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                answer(client)
            client.close()


def answer(client: socket.socket) -> None:
    """Run one client's command in this process, which ends with it."""
    message, streams, *_ = socket.recv_fds(client, 1 << 20, 3)
    request = json.loads(message)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    status = run(request["words"])
    sys.stdout.flush()
    sys.stderr.flush()
    client.send(str(status).encode())
    os._exit(0)


def run(words: list[str]) -> int:
    """The exit status of ``-m MODULE`` or of a Python file with these arguments."""
    import runpy
    import traceback

    words = [word for k, word in enumerate(words) if k or word != "-u"]  # torchrun's, for nothing
    try:
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], os.getcwd()
            sys.modules.pop(words[1], None)  # it becomes __main__
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def ask(path: str, words: list[str]) -> int:
    """Have a server run these words here; the exit status."""
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.connect(path)
        socket.send_fds(client, [json.dumps(request).encode()], [0, 1, 2])
        return int(client.recv(16) or 1)


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    serve(sys.argv[1])
