"""The `p2f` command: thin, one function of the library a command."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from p2f_lib.errors import NoFaceError, P2FError
from p2f_lib.export import obj_files, write_json
from p2f_lib.images import SUFFIXES, read_image, write_image

if TYPE_CHECKING:
    from p2f_lib.reconstruction import Face, Reconstructor
    from p2f_lib.rerender import View

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `p2f` command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names may hold what the terminal can't show
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        _say("stopped.")
        return 130
    except Exception as error:
        _say(_sentence(error))
        return 1


def _parser() -> argparse.ArgumentParser:
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
    command.add_argument(
        "--engine",
        choices=("torch", "onnxruntime", "onnxruntime-int8", "openvino"),
        default="torch",
        help="what runs the network (default: %(default)s); the others are for the CPU and are "
        "installed by pip install 'pix2face-open[onnx]' or '[openvino]'",
    )
    command.set_defaults(run=_reconstruct)

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
    command.set_defaults(run=_pose)

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
    command.set_defaults(run=_fit)

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
    command.set_defaults(run=_render)

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


def _add_network(command: argparse.ArgumentParser) -> None:
    _add_device(command)
    command.add_argument(
        "--variant",
        choices=("full", "fast"),
        default="full",
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


def _reconstructor(arguments: argparse.Namespace, engine: str = "torch") -> Reconstructor:
    """The one that the options of `_add_network` name."""
    from p2f_lib.reconstruction import Reconstructor  # loads PyTorch: seconds

    return Reconstructor.from_pretrained(
        arguments.weights, arguments.device, engine=engine, variant=arguments.variant
    )


def _evaluate(arguments: argparse.Namespace) -> int:
    from p2f_lib.datasets.photos import read_photos
    from p2f_lib.experiments import photo_errors

    photos = read_photos(arguments.folder, arguments.part)
    reconstructor = _reconstructor(arguments)
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


def _choose_landmarks(arguments: argparse.Namespace) -> int:
    from p2f_lib import figures
    from p2f_lib.datasets.photos import read_photos
    from p2f_lib.experiments import landmark_vertex_errors, select_photo_landmarks
    from p2f_lib.morphable_model import MorphableModel
    from p2f_lib.reconstruction import FACE_MODEL_FILE, find_weights, write_landmarks

    markup, part = arguments.markup, arguments.part
    photos = read_photos(arguments.folder, part, markup)
    reconstructor = _reconstructor(arguments)
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
        errors[f"{len(others)} other photos"] = tuple(
            landmark_vertex_errors(reconstructor, others, vertices, markup) for vertices in lists
        )
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
    reconstructor = _reconstructor(arguments)
    predictions = predict(reconstructor, data.photos, arguments.box)
    for problem in (*data.problems, *predictions.problems):
        _say(problem)
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

    MorphableModel.load(arguments.face_model)  # says what is wrong before an hour has passed
    if arguments.photos is not None:
        read_photos(arguments.photos)
    outcomes = ablation.run_all(arguments.face_model, ablation.Budget(), arguments.photos)
    ablation.write_table(arguments.out, outcomes)
    picture = arguments.out.parent / "figures" / f"{arguments.out.stem}.png"
    figures.save(figures.ablation(outcomes), picture)
    print(f"Written: {arguments.out}, {picture}")
    return 0


def _reconstruct(arguments: argparse.Namespace) -> int:
    photos, failed = _expand(arguments.photos)
    if not photos:
        return 1
    reconstructor = _reconstructor(arguments, arguments.engine)
    _make_folder(arguments.out)
    names = _Names(arguments.out, photos)
    stems = [names.take("_".join(photo.stem.splitlines())) for photo in photos]

    def work(number: int) -> str:
        return _reconstruct_photo(
            reconstructor, photos[number], stems[number], names, arguments.box
        )

    return int(_for_each(photos, work) or failed)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise P2FError(f"Cannot make the folder {folder}: {error}.") from error


def _for_each(photos: Sequence[Path], work: Callable[[int], str]) -> bool:
    """Work on every photo, by its number, and report the line that comes back; True if one failed.

    One photo's trouble never stops the others.
    """
    failed = False
    quiet = len(photos) == 1 or not sys.stderr.isatty()
    for number, photo in enumerate(tqdm(photos, unit="photo", disable=quiet)):
        try:
            tqdm.write(work(number))
        except Exception as error:
            failed = True
            _say(_sentence(error, photo))
    return failed


def _reconstruct_photo(
    reconstructor: Reconstructor,
    photo: Path,
    stem: str,
    names: _Names,
    box: Sequence[float] | None,
) -> str:
    """Write everything about one photo; returns the line that reports it."""
    image = read_image(photo)
    faces = reconstructor(image) if box is None else [reconstructor.reconstruct(image, box)]
    if not faces:
        raise NoFaceError("No face was found; give its box with --box if there is one.")
    document: dict = {
        "photo": str(photo),
        "width": image.shape[1],
        "height": image.shape[0],
        "faces": [],
    }
    for number, face in enumerate(faces, start=1):
        name = stem if number == 1 else names.take(f"{stem}_{number}")
        files = {"point_cloud": f"{name}.ply", "mesh": f"{name}.obj", "glb": f"{name}.glb"}
        for file in files.values():
            face.save(names.folder / file)
        document["faces"].append({**face.to_dict(), **files})
    path = names.folder / f"{stem}.json"
    write_json(path, document)
    return f"{photo}: {_summary(faces)} -> {path}"


POSE_COLUMNS = ["photo", "yaw", "pitch", "roll", "confidence", "left", "top", "right", "bottom"]


def _pose(arguments: argparse.Namespace) -> int:
    photos, failed = _expand(arguments.photos)
    done = _photos_in(arguments.out)
    photos = [photo for photo in photos if str(photo) not in done]
    if done:
        print(f"{arguments.out} has {len(done)} photos already; {len(photos)} are left.")
    if not photos:
        return int(failed)
    _make_folder(arguments.out.parent)
    reconstructor = _reconstructor(arguments)
    with arguments.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(POSE_COLUMNS)

        def work(number: int) -> str:
            face = reconstructor.reconstruct(read_image(photos[number]))
            angles = [f"{angle:.1f}" for angle in (face.pose.yaw, face.pose.pitch, face.pose.roll)]
            box = [f"{side:.1f}" for side in face.box.as_tuple()]
            writer.writerow([photos[number], *angles, f"{face.confidence:.3f}", *box])
            file.flush()  # an interrupted run goes on after it
            return f"{photos[number]}: yaw {angles[0]}, pitch {angles[1]}, roll {angles[2]}"

        return int(_for_each(photos, work) or failed)


def _photos_in(table: Path) -> set[str]:
    """The photos of a table of poses; a line that an interrupted run left unfinished is cut off."""
    if not table.exists() or not table.stat().st_size:
        return set()
    try:
        text = table.read_bytes().decode()
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.reader(whole.splitlines()))
    except (OSError, ValueError, csv.Error):
        rows = []
    if not rows or rows[0] != POSE_COLUMNS:
        raise P2FError(
            f"{table} is no table of poses; its first line has to be {','.join(POSE_COLUMNS)}."
        )
    if whole != text:
        table.write_bytes(whole.encode())
    return {row[0] for row in rows[1:]}


def _fit(arguments: argparse.Namespace) -> int:
    from p2f_lib.export import write_glb, write_obj
    from p2f_lib.reconstruction import neutral_mesh, share_shape

    photos, failed = _expand(arguments.photos)
    if not photos:
        return 1
    reconstructor = _reconstructor(arguments)
    found: dict[Path, Face] = {}

    def work(number: int) -> str:
        found[photos[number]] = reconstructor.reconstruct(read_image(photos[number]))
        return f"{photos[number]}: {_summary([found[photos[number]]])}"

    failed |= _for_each(photos, work)
    if not found:
        return 1
    faces = share_shape(list(found.values()), reconstructor.fitter)
    _make_folder(arguments.out)
    path = arguments.out / f"{_Names(arguments.out, photos).take(arguments.name)}.glb"
    mesh = neutral_mesh(faces)
    write_glb(path, mesh)
    write_obj(path.with_suffix(".obj"), mesh)
    document = {
        "shape": faces[0].shape.round(5),
        "photos": {str(photo): face.to_dict() for photo, face in zip(found, faces, strict=True)},
    }
    write_json(path.with_suffix(".json"), document)
    print(f"{len(faces)} photos -> {path}")
    return int(failed)


def _render(arguments: argparse.Namespace) -> int:
    from p2f_lib import rerender

    wishes = ("yaw", "pitch", "roll", "expression", "light", "blend", "jitter")
    if all(getattr(arguments, wish) is None for wish in wishes):
        raise P2FError(
            f"Nothing to change: give at least one of {', '.join(f'--{wish}' for wish in wishes)}."
        )
    if arguments.jitter is not None:
        if arguments.jitter < 1:
            raise P2FError(f"--jitter needs a number of at least 1, got {arguments.jitter}.")
        for wish in ("yaw", "pitch", "roll", "expression"):
            if getattr(arguments, wish) is not None:
                raise P2FError(f"--jitter draws pose and expression itself; leave out --{wish}.")
    light = None if arguments.light is None else rerender.named_light(arguments.light)
    photos, failed = _expand(arguments.photos)
    if not photos:
        return 1
    reconstructor = _reconstructor(arguments)
    model_face, other = None, None
    if arguments.expression not in (None, "neutral", "smile"):
        model_face = reconstructor.reconstruct(read_image(arguments.expression))
    if arguments.blend is not None:
        picture = read_image(arguments.blend)
        other = (reconstructor.reconstruct(picture), picture, arguments.share)
    _make_folder(arguments.out)
    count = arguments.jitter or 1
    ends = [".png"] if arguments.jitter is None else [f"_{i + 1}.png" for i in range(count)]
    names = _Names(arguments.out, photos, lambda path: [Path(f"{path}{end}") for end in ends])
    stems = [names.take("_".join(photo.stem.splitlines())) for photo in photos]

    def work(number: int) -> str:
        image = read_image(photos[number])
        face = reconstructor.reconstruct(image)
        shown = face if other is None else rerender.between(face, other[0], other[2])
        if arguments.jitter is None:
            views = [_view(arguments, shown, model_face)]
        else:
            rng = np.random.default_rng([arguments.seed, number])
            yaws = tuple(arguments.jitter_yaw)
            views = [rerender.jittered_view(shown, rng, yaws) for _ in range(count)]
        for end, view in zip(ends, views, strict=True):
            picture = rerender.rerendered(face, image, view, light, other)
            write_image(arguments.out / f"{stems[number]}{end}", picture)
        pictures = "1 picture" if count == 1 else f"{count} pictures"
        return f"{photos[number]}: {pictures} -> {arguments.out / (stems[number] + ends[0])}"

    return int(_for_each(photos, work) or failed)


def _views(arguments: argparse.Namespace) -> int:
    from p2f_lib import figures, rerender
    from p2f_lib.robustness import portraits

    if len(arguments.photos) == 1:
        raise P2FError("A sheet needs two photos or more, whose faces are mixed; got one.")
    pairs = [(read_image(photo), None) for photo in arguments.photos] or portraits()
    reconstructor = _reconstructor(arguments)
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

    reconstructor = _reconstructor(arguments)
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


def _view(arguments: argparse.Namespace, face: Face, model_face: Face | None) -> View:
    """What `p2f render` was asked to show of a face; `model_face` has the expression."""
    from p2f_lib import rerender

    expression = face.expression
    if model_face is not None:
        expression = rerender.transferred_expression(face, model_face)
    elif arguments.expression == "smile":
        expression = rerender.smile(face)
    elif arguments.expression == "neutral":
        expression = None
    pose = rerender.posed(face, arguments.yaw, arguments.pitch, arguments.roll, arguments.relative)
    return replace(pose, vertices=rerender.expressed(face, expression).vertices)


def _summary(faces: Sequence[Face]) -> str:
    best = faces[0]
    count = "1 face" if len(faces) == 1 else f"{len(faces)} faces, the best one"
    yaw, pitch, roll = (round(float(v)) for v in (best.pose.yaw, best.pose.pitch, best.pose.roll))
    return (
        f"{count} at yaw {yaw}, pitch {pitch}, roll {roll} degrees, "
        f"confidence {best.confidence:.2f}"
    )


class _Names:
    """Hands out names for results such that none overwrites another one or a photo."""

    def __init__(
        self,
        folder: Path,
        photos: Sequence[Path],
        files: Callable[[Path], list[Path]] | None = None,
    ) -> None:
        self.folder = folder
        self._files_of = files or _face_files
        self._photos = {photo.resolve() for photo in photos}
        self._taken: set[str] = set()

    def take(self, name: str) -> str:
        candidate, number = name, 1
        while self._clashes(candidate):
            number += 1
            candidate = f"{name}-{number}"
        self._taken |= {path.name.casefold() for path in self._files(candidate)}
        return candidate

    def _clashes(self, name: str) -> bool:
        files = self._files(name)
        return any(
            path.name.casefold() in self._taken or path.resolve() in self._photos for path in files
        )

    def _files(self, name: str) -> list[Path]:
        return self._files_of(self.folder / name)


def _face_files(path: Path) -> list[Path]:
    """What `p2f reconstruct` writes of a face."""
    return [
        path.with_name(f"{path.name}.json"),
        path.with_name(f"{path.name}.ply"),
        path.with_name(f"{path.name}.glb"),
        *obj_files(path.with_name(f"{path.name}.obj")),
    ]


def _expand(paths: Sequence[Path]) -> tuple[list[Path], bool]:
    """Photos in order, each once, folders replaced by their pictures; True if a folder had none."""
    photos: dict[Path, Path] = {}
    failed = False
    for path in paths:
        try:
            found = _pictures(path) if path.is_dir() else [path]
            if not found:
                raise P2FError("There is no picture in this folder.")
            for photo in found:
                photos.setdefault(photo.resolve(), photo)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a ring
            failed = True
            _say(_sentence(error, path))
    return list(photos.values()), failed


def _pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, by name, without the textures of meshes beside them."""
    textures = {obj_files(mesh)[2].name for mesh in folder.glob("*.obj")}
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.name not in textures and path.is_file()
    )


def _sentence(error: Exception, path: Path | None = None) -> str:
    """One line on what went wrong, naming the file that it is about."""
    text = " ".join(str(error).split())
    if not isinstance(error, P2FError):
        text = f"Unexpected {type(error).__name__}: {text or 'no details'}"
    return text if path is None or str(path) in text else f"{path}: {text}"


def _say(sentence: str) -> None:
    tqdm.write(f"p2f: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
