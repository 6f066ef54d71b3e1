"""The `p2f` command: thin, one function of the library a command.

The commands that go through photos are in `p2f_lib.photo_commands`, those for videos in
`p2f_lib.video_commands`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from p2f_lib import photo_commands, video_commands
from p2f_lib.errors import P2FError
from p2f_lib.images import read_image
from p2f_lib.photo_commands import make_reconstructor, say, sentence

EPILOG = """\
For every PHOTO this writes into DIR, named after the photo:
  NAME.json           all faces, best first: landmarks, pose, box, confidence, cameras, coefficients
  NAME.ply            the best face's coloured point cloud, mm
  NAME.glb            its fitted mesh, textured all around, metres
  NAME.obj            the same, mm, with NAME.mtl and NAME_texture.png
and NAME_2.ply, NAME_2.glb ... for further faces. Photos that share a name get -2, -3 ... behind it;
a photo itself is never overwritten. Exit status: 0 when every photo worked, 1 when one did not,
2 when the command itself is wrong.
"""

TRACK_EPILOG = """\
This writes into DIR, for frames counted from 1:
  projected_image_space/NAME/000001.ljson .pts         84 points in the picture, smoothed, pixels
  model_space/NAME/000001.ljson                        the same in 3D, mm
  ibug68/...                                           the same for the 68 points of iBUG
  NAME.csv         a row a frame: time, scene, detected or not, box, pose, confidence, coefficients
  NAME.avi         the landmarks over the video
  meshes/NAME/     with --mesh
  work/NAME/       by which --resume goes on; to be deleted when all is done
State in the table: detected; interpolated between two detections; held beside one; tracked from the
frame before; absent; unreadable. Exit status as of reconstruct.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `p2f` command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold what the terminal can't show
            stream.reconfigure(errors="backslashreplace")
    arguments = make_parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        say("stopped.")
        return 130
    except Exception as error:
        say(sentence(error))
        return 1


def make_parser() -> argparse.ArgumentParser:
    """All commands of `p2f` with their options."""
    parser = argparse.ArgumentParser(
        prog="p2f", description="3D faces from single photos.", fromfile_prefix_chars="@"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser(
        "reconstruct",
        help="photos to landmarks, pose, point clouds and textured meshes",
        description="Reconstruct every face of every photo.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_photos(command)
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="made if missing")
    command.add_argument(
        "--box",
        nargs=4,
        type=float,
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="where the face is in every photo, pixels; nothing is detected then",
    )
    _add_network(command)
    _add_engine(command)
    command.add_argument(
        "--resume", action="store_true", help="skip photos whose files are in DIR already"
    )
    command.set_defaults(run=photo_commands.reconstruct)

    command = commands.add_parser(
        "pose",
        help="photos to head poses in a table",
        description="Write yaw, pitch and roll of the best face of every photo, degrees, to FILE: "
        "a row a photo, with the face's box and confidence. Photos that FILE has already are "
        "skipped, so an interrupted run goes on.",
    )
    _add_photos(command)
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help="a .csv")
    _add_network(command)
    command.set_defaults(run=photo_commands.pose)

    _add_track(commands)

    command = commands.add_parser(
        "fit",
        help="several photos of one person to one mesh",
        description="Fit one shape to the best faces of all photos (Eq. 5 of the paper), with an "
        "expression and a camera for each, and merge their textures. Writes NAME.glb and NAME.obj, "
        "the neutral mesh, and NAME.json into DIR.",
    )
    _add_photos(command)
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="made if missing")
    command.add_argument("--name", default="person", help="of the files (default: %(default)s)")
    _add_network(command)
    command.set_defaults(run=photo_commands.fit)

    command = commands.add_parser(
        "render",
        help="photos with the head turned, another expression, light or face",
        description="Write every photo again as DIR/NAME.png with its best face changed; with "
        "--jitter, N random ones, NAME_1.png and so on.",
        epilog="Angles that are not given stay. Exit status as of reconstruct.",
    )
    _add_photos(command)
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="made if missing")
    for angle, positive in (("yaw", "right"), ("pitch", "up"), ("roll", "clockwise")):
        command.add_argument(
            f"--{angle}", type=float, metavar="DEGREES", help=f"positive: {positive}"
        )
    command.add_argument(
        "--relative", action="store_true", help="count angles from those in the photo"
    )
    command.add_argument(
        "--expression", metavar="neutral|smile|PHOTO", help="PHOTO: the expression in that picture"
    )
    command.add_argument("--light", metavar="NAME", help="left, right, above, below, front or even")
    command.add_argument("--blend", type=Path, metavar="PHOTO", help="mix with the face in PHOTO")
    command.add_argument(
        "--share", type=float, default=0.5, help="of that face (default: %(default)s)"
    )
    command.add_argument(
        "--jitter", type=int, metavar="N", help="random yaws and expressions, for augmentation"
    )
    command.add_argument(
        "--jitter-yaw",
        nargs=2,
        type=float,
        default=(-90.0, 90.0),
        metavar=("LOW", "HIGH"),
        help="degrees (default: -90 90); 30 90: profiles, to either side",
    )
    command.add_argument("--seed", type=int, default=0, help="of --jitter (default: %(default)s)")
    _add_network(command)
    command.add_argument(
        "--resume", action="store_true", help="skip photos whose files are in DIR already"
    )
    command.set_defaults(run=photo_commands.render)

    command = commands.add_parser(
        "views",
        help="every change that render makes, on one sheet",
        description="Draw two photos or more turned, with other expressions and lights, and mixed "
        "with each other.",
    )
    command.add_argument(
        "photos",
        nargs="*",
        type=Path,
        metavar="PHOTO",
        help="pictures (default: the bundled portraits)",
    )
    command.add_argument("--out", required=True, type=Path, metavar="FILE", help=".jpg or .png")
    _add_network(command)
    command.set_defaults(run=_views)

    command = commands.add_parser(
        "choose-weight",
        help="the Tikhonov weight that suits a network best",
        description="Fit rendered people with one weight after another and print the mean error "
        "of the mesh; `p2f_lib.fitting.WEIGHT` is the one that everything uses.",
    )
    command.add_argument(
        "--frames", type=int, default=100, help="rendered faces (default: %(default)s)"
    )
    command.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    _add_network(command)
    command.set_defaults(run=_choose_weight)

    command = commands.add_parser(
        "oracle",
        help="how exact cameras and meshes are, given true planes with known faults",
        description="Writes DIR/oracle.csv and DIR/figures/oracle.png: what localisation, least "
        "squares and the prior leave, cameras from subsets of the pixels, shapes from several "
        "photos.",
    )
    _add_face_model(command)
    command.add_argument(
        "--people", type=int, default=40, help="random ones (default: %(default)s)"
    )
    command.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    command.add_argument(
        "--out", type=Path, default=Path("reports"), metavar="DIR", help="default: %(default)s"
    )
    command.set_defaults(run=_oracle)

    command = commands.add_parser(
        "evaluate",
        help="landmark errors on annotated photographs",
        description="Errors of the iBUG landmarks in the annotated boxes, in %% of the distance of "
        "the outer eye corners.",
    )
    command.add_argument(
        "folder",
        type=Path,
        help="landmarks.npz with images/, or pictures with a .pts file of the same name (300-W)",
    )
    _add_part(command, "all")
    command.add_argument(
        "--limit", type=float, default=25.0, help="%% beyond which a photo has failed (default 25)"
    )
    _add_network(command)
    command.set_defaults(run=_evaluate)

    command = commands.add_parser(
        "choose-landmarks",
        help="the face model's landmark vertices, from annotated photographs",
        description="For each landmark, the mesh vertex of least reprojection error (section 4 "
        "of the paper). Measure on other photographs than these: with one half of a folder, the "
        "errors on the other are said, too.",
    )
    command.add_argument("folder", type=Path, help="as of evaluate")
    _add_part(command, "odd")
    command.add_argument(
        "--markup",
        default="ibug68",
        metavar="NAME",
        help="of the photographs: ibug68, menpo84, or any name for points of your own, which "
        "should span the face from the brows to the chin (default: %(default)s)",
    )
    command.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the vertices and errors before and after"
    )
    command.add_argument(
        "--radius",
        type=float,
        default=10.0,
        metavar="MM",
        help="about the face model's own vertices that are searched, if it has any "
        "(default: %(default)g)",
    )
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="landmarks.json; beside the weights it is used from then on, its other lists stay",
    )
    _add_network(command)
    command.set_defaults(run=_choose_landmarks)

    command = commands.add_parser(
        "model-card",
        help="measure a network and write its model card",
        description="Errors on synthetic people whom no training has seen and, where they are "
        "given, on annotated photographs; its provenance; its worst pictures.",
    )
    command.add_argument("--photos", type=Path, metavar="FOLDER", help="as of evaluate")
    _add_part(command, "even")
    command.add_argument("--count", type=int, default=300, help="people (default: %(default)s)")
    command.add_argument(
        "--out", type=Path, default=Path("reports/model_card.md"), help="default: %(default)s"
    )
    _add_device(command)
    _add_weights(command)
    command.set_defaults(run=_model_card)

    command = commands.add_parser(
        "groups",
        help="errors by skin tone, age and head pose",
        description="Photographs of the same synthetic people in every skin tone and from four "
        "sides, and of people of five ages; errors with 95 %% intervals, and how often dlib finds "
        "the face.",
    )
    command.add_argument("--count", type=int, default=200, help="people (default: %(default)s)")
    command.add_argument(
        "--out", type=Path, default=Path("reports/groups.csv"), help="default: %(default)s"
    )
    _add_device(command)
    _add_weights(command)
    command.set_defaults(run=_groups)

    command = commands.add_parser(
        "evaluate-tracking",
        help="what the options of track cost in error and time",
        description="Tracks annotated clips with one set of options after another: detection in "
        "fewer frames, crops from the frame before, smoothing, a shared shape.",
    )
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("data/menpo3d_synthetic"),
        help="clips in the layout of the 3D Menpo challenge (default: %(default)s)",
    )
    command.add_argument(
        "--out", type=Path, default=Path("reports/tracking.csv"), help="default: %(default)s"
    )
    _add_device(command)
    _add_weights(command)
    command.set_defaults(run=video_commands.evaluate_tracking)

    command = commands.add_parser(
        "evaluate-aflw2000",
        help="landmark and pose errors on AFLW2000-3D, beside the published ones",
        description="The protocols of 3DDFA (68 points by yaw) and HopeNet (head pose).",
    )
    command.add_argument(
        "folder", type=Path, help="AFLW2000-3D: image00002.jpg, image00002.mat and so on"
    )
    command.add_argument(
        "--box",
        choices=("landmarks", "pose"),
        default="landmarks",
        help="where to look first: the box of the true 68 points (default), or the looser crop of "
        "the head-pose literature",
    )
    _add_network(command)
    command.set_defaults(run=_evaluate_aflw2000)

    command = commands.add_parser(
        "train",
        help="train a network by a recipe such as params/release.yaml",
        description="Trains the network that a file like params.yaml describes and writes "
        "DIR/unet.safetensors. A run that was interrupted, even killed, goes on from its last "
        "checkpoint when the same command is given again. Started by torchrun or srun, it shares "
        "every batch among the processes.",
    )
    command.add_argument(
        "--config",
        type=Path,
        default=Path("params.yaml"),
        metavar="FILE",
        help="seed, ground_truth and train are read (default: %(default)s)",
    )
    command.add_argument(
        "-S",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set an entry of it anew, such as train.epochs=4; may be given several times",
    )
    command.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="go on from these weights, e.g. data/release/unet.safetensors on data of your own; "
        "for new people, set another seed",
    )
    _add_face_model(command)
    command.add_argument(
        "--out",
        type=Path,
        default=Path("build/trained"),
        metavar="DIR",
        help="for weights, checkpoints and curves (default: %(default)s)",
    )
    command.add_argument("--devices", type=int, default=1, help="of each machine (default: 1)")
    command.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    command.add_argument("--precision", help="as of Lightning (default: bfloat16 on a GPU)")
    command.add_argument(
        "--save-every", type=int, default=1000, metavar="STEPS", help="default: %(default)s"
    )
    command.add_argument("--compile", action="store_true", help="use torch.compile")
    command.set_defaults(run=_train)

    command = commands.add_parser(
        "export",
        help="the network as an ONNX file, for other programs",
        description="Writes the network as ONNX and compares it with PyTorch's. Input: images "
        "(B, 3, S, S) float32, RGB / 255 - 0.5. Output: planes (B, 6, S, S) float32, PNCC and "
        "offsets in the units that the file's metadata name (config: pncc_scale, offset_scale).",
    )
    _add_weights(command)
    command.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    command.set_defaults(run=_export)

    command = commands.add_parser(
        "ablation",
        help="what each ingredient of the synthetic photographs is worth",
        description="Trains the same small network without one ingredient at a time and measures "
        "all of them on synthetic people with all ingredients; about three minutes a run and core.",
    )
    _add_face_model(command)
    command.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="annotated photographs to measure on, too"
    )
    command.add_argument(
        "--out", type=Path, default=Path("reports/ablation.csv"), help="default: %(default)s"
    )
    command.set_defaults(run=_ablation)
    return parser


def _add_track(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser(
        "track",
        help="a video to landmarks, poses and meshes of one person in every frame",
        description="Follow one person through a video (section 4.1 of the paper): boxes of all "
        "frames first, missing ones interpolated, then a reconstruction in each.",
        epilog=TRACK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="a video file, a folder of pictures, or the number of a camera",
    )
    command.add_argument("--out", required=True, type=Path, metavar="DIR", help="made if missing")
    command.add_argument("--name", help="of the results (default: the video's)")
    command.add_argument("--frames", type=int, metavar="N", help="only the first N frames")
    command.add_argument("--seconds", type=float, help="only so much of the beginning")
    command.add_argument(
        "--fps", type=float, default=25.0, help="of a folder of pictures (default: %(default)g)"
    )
    command.add_argument(
        "--detector-file",
        type=Path,
        metavar="FILE",
        help="dlib's mmod_human_face_detector.dat: its network in place of its built-in detector",
    )
    command.add_argument(
        "--detect-every",
        type=int,
        metavar="K",
        help="detect in every K-th frame, follow the fits between (default: 1; live: 25)",
    )
    command.add_argument(
        "--follow", action="store_true", help="take every crop from the fit of the frame before"
    )
    command.add_argument(
        "--max-gap",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="without a detection that are bridged; in longer gaps the face is followed only "
        "while the network is sure of it (default: %(default)g)",
    )
    command.add_argument(
        "--every-frame", action="store_true", help="bridge all gaps, as the challenge wants it"
    )
    command.add_argument(
        "--smoothing",
        choices=("average", "one-euro", "none"),
        help="of the landmarks in the picture (default: average; live: one-euro)",
    )
    command.add_argument(
        "--window", type=int, default=3, help="frames of the average (default: %(default)s)"
    )
    command.add_argument(
        "--share-shape", action="store_true", help="one shape for the whole clip (Eq. 5)"
    )
    command.add_argument("--mesh", choices=("glb", "ply"), help="write meshes, too")
    command.add_argument(
        "--mesh-every", type=int, default=1, metavar="N", help="of every N-th frame (default: 1)"
    )
    command.add_argument("--no-overlay", action="store_true", help="write no overlay video")
    command.add_argument(
        "--live", action="store_true", help="go through once and never look ahead, as of a camera"
    )
    command.add_argument(
        "--batch", type=int, default=8, help="frames for the network at once (default: 8)"
    )
    command.add_argument("--threads", type=int, help="default: one a core, 4 at most")
    _add_network(command, variant="fast")
    _add_engine(command)
    command.add_argument(
        "--resume", action="store_true", help="go on with what an interrupted run left in DIR"
    )
    command.set_defaults(run=video_commands.track)


def _add_photos(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "photos",
        nargs="+",
        type=Path,
        metavar="PHOTO",
        help="a picture, a folder for every picture right in it, or @FILE for a list, one a line",
    )


def _add_part(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--part",
        choices=("all", "even", "odd"),
        default=default,
        help="which half of the photos: the odd one is for choosing landmark vertices, the even "
        "one for measuring (default: %(default)s)",
    )


def _add_face_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--face-model",
        type=Path,
        default=Path("build/face_model.safetensors"),
        help="default: %(default)s",
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", default="auto", help="auto (default), cpu, or cuda where PyTorch sees one"
    )


def _add_engine(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine",
        choices=("torch", "onnxruntime", "onnxruntime-int8", "openvino"),
        default="torch",
        help="what runs the network (default: %(default)s); the others are for the CPU and are "
        "installed by pip install 'pix2face-open[onnx]' or '[openvino]'",
    )


def _add_network(command: argparse.ArgumentParser, variant: str = "full") -> None:
    _add_device(command)
    command.add_argument(
        "--variant",
        choices=("full", "fast"),
        default=variant,
        help="fast: for video; once through the network, where full takes four times "
        "(default: %(default)s)",
    )
    _add_weights(command)


def _add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights",
        type=Path,
        metavar="FOLDER",
        help="folder of face_model.safetensors and unet.safetensors (default: those released, in "
        "data/release of the checkout, else build, or the environment variable P2F_HOME)",
    )


def _evaluate(arguments: argparse.Namespace) -> int:
    from p2f_lib.datasets.photos import read_photos
    from p2f_lib.experiments import photo_errors

    photos = read_photos(arguments.folder, arguments.part)
    reconstructor = make_reconstructor(arguments)
    found = photo_errors(reconstructor, photos).summary(arguments.limit / 100)
    print(f"{found['photos']} photos, {found['unseen']} of them without a face")
    print(f"51 inner points: mean {100 * found['inner_mean']:.2f} %")
    print(f"51 inner points: median {100 * found['inner_median']:.2f} %")
    print(f"all 68 points: mean {100 * found['all_mean']:.2f} %")
    print(f"beyond {arguments.limit:g} %: {found['failures']} photos")
    return 0


def _model_card(arguments: argparse.Namespace) -> int:
    from p2f_lib import model_card
    from p2f_lib.datasets.photos import read_photos
    from p2f_lib.reconstruction import Reconstructor, find_weights

    photos = {}
    if arguments.photos is not None:
        photos = {"real photographs": read_photos(arguments.photos, arguments.part)}
    folder = find_weights(arguments.weights)
    reconstructor, fast = (
        Reconstructor.from_pretrained(folder, arguments.device, variant=variant)
        for variant in ("full", "fast")
    )
    picture = f"{arguments.out.stem}_failures.png"
    samples = model_card.synthetic_people(reconstructor, arguments.count)
    card = model_card.make_card(reconstructor, samples, photos, folder.name, picture, fast)
    model_card.write(arguments.out, card, picture)
    print(f"Written: {arguments.out}, {arguments.out.parent / 'figures' / picture}")
    return 0


def _groups(arguments: argparse.Namespace) -> int:
    from p2f_lib import figures, groups
    from p2f_lib.detection import DlibDetector
    from p2f_lib.face_models.anny import shapes_of_ages
    from p2f_lib.parallel import one_thread
    from p2f_lib.reconstruction import Reconstructor
    from p2f_lib.tables import write_table

    reconstructor = Reconstructor.from_pretrained(arguments.weights, arguments.device)
    shapes = shapes_of_ages(reconstructor.model, groups.ages_of(arguments.count), groups.SEED)
    with one_thread():  # the same digits on any machine of one kind
        rows = groups.measure(reconstructor, DlibDetector(), shapes)
    write_table(arguments.out, rows)
    picture = arguments.out.parent / "figures" / f"{arguments.out.stem}.png"
    figures.save(figures.groups(rows, groups.examples(reconstructor.model, shapes)), picture)
    print(f"Written: {arguments.out}, {picture}")
    return 0


def _choose_landmarks(arguments: argparse.Namespace) -> int:
    from p2f_lib import figures
    from p2f_lib.datasets.photos import read_photos
    from p2f_lib.experiments import landmark_vertex_errors, select_photo_landmarks
    from p2f_lib.morphable_model import MorphableModel
    from p2f_lib.reconstruction import FACE_MODEL_FILE, find_weights, write_landmarks

    markup, part = arguments.markup, arguments.part
    photos = read_photos(arguments.folder, part, markup)
    reconstructor = make_reconstructor(arguments)
    # Its own, not those of a list beside the weights: the same choice however often it is made.
    own = MorphableModel.load(find_weights(arguments.weights) / FACE_MODEL_FILE)
    start = own.landmarks.get(markup)
    chosen = select_photo_landmarks(reconstructor, photos, arguments.radius, markup, start)
    write_landmarks(arguments.out, {markup: chosen.indices}, own)
    print(f"Written: {arguments.out}")
    errors = {f"the {len(photos)} photos that chose": (chosen.error_before, chosen.error)}
    if part != "all":
        others = read_photos(arguments.folder, "even" if part == "odd" else "odd", markup)
        lists = (chosen.indices if start is None else start), chosen.indices
        before, after = (
            landmark_vertex_errors(reconstructor, others, vertices, markup) for vertices in lists
        )
        errors[f"{len(others)} other photos"] = before, after
    for name, (before, after) in errors.items():
        change = "" if start is None else f"{100 * np.nanmean(before):.2f} % before, "
        print(f"{name}: {change}{100 * np.nanmean(after):.2f} % after")
    if arguments.figure is not None:
        start = chosen.indices if start is None else start
        figures.save(figures.landmark_choice(own, start, chosen.indices, errors), arguments.figure)
        print(f"Written: {arguments.figure}")
    return 0


def _evaluate_aflw2000(arguments: argparse.Namespace) -> int:
    from p2f_lib.datasets.aflw2000 import evaluate, predict, read_aflw2000, report

    data = read_aflw2000(arguments.folder)
    reconstructor = make_reconstructor(arguments)
    predictions = predict(reconstructor, data.photos, arguments.box)
    for problem in (*data.problems, *predictions.problems):
        say(problem)
    print(report(evaluate(predictions, data.photos)))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from p2f_lib import recipe
    from p2f_lib.datasets.sources import make_table
    from p2f_lib.morphable_model import MorphableModel
    from p2f_lib.training import pin_threads
    from p2f_lib.unet import load_unet

    parameters = recipe.with_settings(recipe.read_parameters(arguments.config), arguments.settings)
    start = None if arguments.start is None else load_unet(arguments.start)
    model = MorphableModel.load(arguments.face_model)
    table = make_table(parameters["ground_truth"], model, parameters["seed"])
    pin_threads(parameters["train"]["threads"])
    hardware = {"devices": arguments.devices, "num_nodes": arguments.nodes}
    if arguments.devices * arguments.nodes > 1:
        hardware["strategy"] = "ddp"
    if arguments.precision is not None:
        hardware["precision"] = arguments.precision
    trained = recipe.run(
        parameters,
        model,
        table,
        arguments.out / "checkpoints",
        arguments.out / "curves",
        arguments.out / "faces",
        save_every=arguments.save_every,
        hardware=hardware,
        compiled=arguments.compile,
        start=start,
    )
    if trained.is_first:  # of several processes, one writes
        weights = arguments.out / "unet.safetensors"
        recipe.save(
            weights,
            trained,
            model,
            recipe=" ".join([arguments.config.stem, *arguments.settings]),
            **recipe.provenance_of(arguments.start),
            code_revision=recipe.code_revision(),
        )
        print(f"Written: {weights}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from p2f_lib.engines import TOLERANCE, export_onnx
    from p2f_lib.reconstruction import WEIGHTS_FILE, find_weights
    from p2f_lib.unet import load_unet

    folder = arguments.weights or find_weights()  # a folder that is named needs no face model
    difference = export_onnx(load_unet(folder / WEIGHTS_FILE), arguments.out)
    print(
        f"Written: {arguments.out} ({arguments.out.stat().st_size / 1e6:.1f} MB); largest "
        f"difference from PyTorch {difference:.1e}, allowed {TOLERANCE:.0e}"
    )
    return 0


def _ablation(arguments: argparse.Namespace) -> int:
    from p2f_lib import ablation, figures
    from p2f_lib.datasets.photos import read_photos
    from p2f_lib.morphable_model import MorphableModel
    from p2f_lib.tables import write_table

    MorphableModel.load(arguments.face_model)  # says what is wrong before an hour has passed
    if arguments.photos is not None:
        read_photos(arguments.photos)
    outcomes = ablation.run_all(arguments.face_model, ablation.Budget(), arguments.photos)
    write_table(arguments.out, outcomes)
    picture = arguments.out.parent / "figures" / f"{arguments.out.stem}.png"
    figures.save(figures.ablation(outcomes), picture)
    print(f"Written: {arguments.out}, {picture}")
    return 0


def _views(arguments: argparse.Namespace) -> int:
    from p2f_lib import figures, rerender
    from p2f_lib.robustness import portraits

    if len(arguments.photos) == 1:
        raise P2FError("A sheet needs two photos or more, whose faces are mixed; got one.")
    pairs = [(read_image(photo), None) for photo in arguments.photos] or portraits()
    reconstructor = make_reconstructor(arguments)
    images = [image for image, _ in pairs]
    faces = [reconstructor.reconstruct(image, box) for image, box in pairs]
    after = [*range(1, len(faces)), 0]  # whom each is mixed with
    views = [
        rerender.examples(faces[i], images[i], faces[j], images[j]) for i, j in enumerate(after)
    ]
    figures.save(figures.rerenderings(images, faces, views), arguments.out)
    print(f"Written: {arguments.out}")
    return 0


def _choose_weight(arguments: argparse.Namespace) -> int:
    from p2f_lib.experiments import render_frames, weight_errors
    from p2f_lib.fitting import WEIGHT

    reconstructor = make_reconstructor(arguments)
    weights = sorted({*np.round(np.geomspace(1e-3, 1, 13), 4), WEIGHT})
    frames = render_frames(reconstructor.model, arguments.seed, arguments.frames, size=256)
    errors = weight_errors(reconstructor, frames, weights)
    for weight, error in zip(weights, errors, strict=True):
        print(f"{weight:7.4f} mm^2: {error:.3f} mm{' (in use)' if weight == WEIGHT else ''}")
    print(f"best: {weights[int(np.argmin(errors))]:g} mm^2")
    return 0


def _oracle(arguments: argparse.Namespace) -> int:
    from p2f_lib import figures, oracle
    from p2f_lib.morphable_model import MorphableModel

    if arguments.people < 1:
        raise P2FError(f"--people needs at least 1, got {arguments.people}.")
    model = MorphableModel.load(arguments.face_model)
    options = model, arguments.seed, arguments.people
    rows = oracle.fit_errors(*options)
    table, picture = arguments.out / "oracle.csv", arguments.out / "figures" / "oracle.png"
    figure = figures.oracle(
        oracle.SUBSETS,
        *oracle.camera_by_subset(*options, oracle.SUBSETS),
        oracle.PHOTOS,
        oracle.shape_by_photos(*options, oracle.PHOTOS),
    )
    figures.save(figure, picture)
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(rows[0])
        for name, *numbers in (row.values() for row in rows):
            writer.writerow([name, *(f"{number:.3f}" for number in numbers)])
            print(f"{name}: mesh {numbers[1]:.2f} mm, pose {numbers[2]:.2f} degrees")
    print(f"Written: {table}, {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
