"""The house's own rules, read from the code: arrows, sizes, who prints, public names, docstrings."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import verydeep

TOP = Path(verydeep.__file__).parent
MODULES = {
    ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__").replace("__init__", ""): path
    for path in sorted(TOP.rglob("*.py"))
}
ANY_ROOM = {"class_names"}  # what any room may use
# A room and the rooms it may use; docs/architecture.md draws it.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors", "script"},
    "script": set(),
    "sealed": {"errors", "files"},
    "mat_files": {"errors"},
    "mat_child": {"errors", "mat_files"},
    "stored": {"errors", "files"},
    "progress": set(),
    "team": set(),
    "parallel": {"errors", "pulse", "team"},
    "pulse": set(),
    "configurations": {"errors", "nearest"},
    "paths": set(),
    "config": {"configurations", "errors", "nearest", "paths"},
    "nearest": set(),
    "boxes": set(),
    "localisation.settings": {"config", "errors"},
    "recipes": {"config", "configurations", "errors", "localisation.settings"},
    "colours": set(),
    "image_formats": set(),
    "image_files": {"config", "image_formats"},
    "images": {"errors", "image_files", "image_formats"},
    "metrics": {"boxes", "errors"},
    "winograd": set(),
    "memory": set(),
    "nets": {"configurations", "errors", "winograd"},
    "sockets": set(),
    "readers": {"errors", "image_files", "script", "sockets"},
    "processors": set(),
    "machine": {"config", "configurations", "errors", "image_files", "memory", "processors", "readers"},
    "runs": {"errors", "files"},
    "summary": {"metrics", "scores"},
    "server_files": {"boxes", "data", "data.imagenet", "errors", "files", "scores"},
    "fusion": {"errors", "files", "metrics", "runs", "scores", "server_files", "summary"},
    "experiments": {"errors", "nearest", "recipes"},
    "experiments.classification": {"experiments"},
    "experiments.localisation": {"experiments"},
    "experiments.released": {"experiments"},
    "experiments.nets": set(),
    "experiments.sizes": {"config", "recipes"},
    "measuring": {"config", "configurations", "data", "errors", "images", "machine", "nets", "optimisation"},
    "planning": {
        *("checkpoints", "config", "data", "errors", "experiments", "experiments.released", "experiments.sizes"),
        *("files", "protocols", "recipes", "runs", "scores"),
    },
    "estimating": {"config", "configurations", "data", "images", "machine", "measuring", "planning", "progress"},
    "releasing": {
        *("checkpoints", "class_names", "config", "configurations", "data", "data.imagenet", "errors", "experiments"),
        *("files", "model_card", "nets", "opening", "progress", "runs", "weights", "weights.released"),
    },
    "exporting.onnx_graph": {"checkpoints", "configurations", "errors", "nets"},
    "exporting.traced": {"configurations", "exporting.onnx_graph", "nets"},
    "exporting.exported": {
        *("checkpoints", "configurations", "errors", "exporting.onnx_graph", "files", "weights.protobuf"),
    },
    "opening": {"checkpoints", "configurations", "errors", "exporting.exported", "runs", "weights"},
    "model_card": {"checkpoints", "configurations", "errors", "files", "runs", "weights.as_written"},
    "exporting.quantising": {"errors", "images", "progress"},
    "exporting.writing": {
        *("checkpoints", "config", "data", "data.loading", "errors", "evaluation", "exporting.exported"),
        *("exporting.onnx_graph", "exporting.quantising", "exporting.traced", "files", "machine", "model_card", "nets"),
        *("opening", "posteriors", "progress", "protocols", "readers", "weights.as_written", "weights.pixels"),
    },
    "converting": {
        *("checkpoints", "configurations", "errors", "files", "model_card", "opening", "paths", "runs", "weights"),
        *("weights.as_written", "weights.caffe", "weights.keras", "weights.layouts", "weights.pixels"),
        *("weights.released", "weights.sidecar"),
    },
    "hub": {"checkpoints", "config", "errors", "model_card", "prediction", "runs"},
    "benchmarking": {
        *("benchmarking.inference", "benchmarking.reading", "benchmarking.steps", "benchmarking.svms", "config"),
        *("configurations", "errors", "progress", "team"),
    },
    "benchmarking.turns": {"errors", "machine", "progress", "winograd"},
    "benchmarking.apart": {"benchmarking.peers", "benchmarking.turns", "errors", "machine"},
    "benchmarking.peers": {"configurations", "errors"},
    "benchmarking.inference": {
        *("benchmarking.apart", "benchmarking.turns", "checkpoints", "config", "configurations", "errors", "machine"),
        *("nets", "opening", "posteriors", "progress", "protocols", "weights.pixels"),
    },
    "benchmarking.steps": {
        *("benchmarking.apart", "benchmarking.inference", "benchmarking.turns", "config", "configurations", "machine"),
        *("nets", "optimisation", "progress", "team", "weights.pixels"),
    },
    "benchmarking.reading": {
        *("benchmarking.turns", "config", "data", "data.loading", "data.packing", "errors", "machine", "progress"),
        "readers",
    },
    "benchmarking.svms": {"benchmarking.turns", "config", "errors", "machine", "progress", "transfer.svm_learning"},
    "results": {
        *("checkpoints", "config", "errors", "experiments", "files", "metrics", "planning", "progress", "protocols"),
        *("runs", "scores", "stored", "summary"),
    },
    "localisation.reproduction": {
        *("checkpoints", "config", "data", "errors", "estimating", "experiments", "experiments.localisation", "files"),
        *("fusion", "localisation.evaluation", "localisation.training", "planning", "progress", "recipes", "results"),
        *("runs", "stopping", "stored"),
    },
    "reproduction": {
        *("config", "data", "errors", "estimating", "evaluation", "experiments", "experiments.sizes", "files"),
        *("localisation.reproduction", "planning", "preparing", "progress", "recipes", "releasing", "results"),
        *("stopping", "stored", "transfer.reproduction"),
    },
    "experiments.transfer": {"experiments", "experiments.released"},
    "transfer.reproduction": {
        *("config", "data", "errors", "experiments", "experiments.sizes", "experiments.transfer", "files", "machine"),
        *("progress", "stored", "transfer.describing", "transfer.files", "transfer.nets", "transfer.protocols"),
        *("transfer.settings", "weights"),
    },
    "stopping": {"progress"},
    "tables": {
        *("configurations", "errors", "experiments", "experiments.nets", "experiments.sizes", "files", "stored"),
        "table_notes",
    },
    "table_notes": {"experiments.sizes"},
    "terminal": {"progress"},
    "optimisation": {"config", "nets"},
    "checkpoints": {"config", "configurations", "errors", "files", "images", "localisation.settings", "nets", "sealed"},
    "weights": {
        *("checkpoints", "configurations", "errors", "runs", "weights.cache", "weights.caffe", "weights.keras"),
        *("weights.layouts", "weights.matconvnet", "weights.pixels", "weights.released", "weights.sidecar"),
        *("weights.tensorflow", "weights.torch_files"),
    },
    "weights.pixels": {"errors"},
    "weights.as_written": {"checkpoints", "configurations", "weights.pixels"},
    "weights.protobuf": set(),
    "weights.layouts": {"configurations", "errors"},
    "weights.caffe": {"configurations", "errors", "weights.layouts", "weights.protobuf"},
    "weights.keras": {"checkpoints", "configurations", "errors", "weights.layouts"},
    "weights.matconvnet": {"mat_files", "weights.layouts", "weights.pixels"},
    "weights.tensorflow": {"errors", "weights.layouts", "weights.protobuf"},
    "weights.torch_files": {"checkpoints", "errors", "files", "weights.layouts"},
    "weights.released": {"configurations", "errors", "nearest"},
    "weights.cache": {"errors", "files", "progress", "weights.released"},
    "weights.sidecar": {
        *("checkpoints", "errors", "files", "weights.as_written", "weights.pixels", "weights.released"),
    },
    "starting": {"checkpoints", "config", "errors", "nets", "progress", "recipes", "weights", "weights.cache"},
    "protocols": {"configurations", "errors"},
    "posteriors": {"configurations", "images", "machine", "nets", "protocols"},
    "data": {"config", "data.boxed", "data.pack", "data.sets", "data.walk", "errors"},
    "rescaled": {"errors", "image_files", "images"},
    "data.walk": {"errors", "image_formats"},
    "data.layout": {"data.walk", "errors"},
    "data.pack": {"config", "data.sets", "data.walk", "errors", "files", "images"},
    "data.packing": {"config", "data", "data.loading", "data.pack", "errors", "files", "images", "progress", "readers"},
    "data.sets": {"data.walk", "errors", "images"},
    "text_files": {"errors"},
    "class_names": {"text_files"},
    "data.tables": {"errors", "files", "text_files"},
    "data.folder": {
        *("config", "data.layout", "data.sets", "data.tables", "data.walk", "errors", "image_formats"),
    },
    "data.imagenet": {"config", "data.boxfiles", "data.folder", "data.sets", "data.walk", "errors", "mat_files"},
    "data.webdataset": {
        *("config", "data.folder", "data.layout", "data.sets", "data.walk", "errors", "image_formats", "images"),
    },
    "data.caltech": {"config", "data.folder", "data.sets", "errors"},
    "data.voc": {"config", "data.boxfiles", "data.sets", "errors", "images"},
    "data.digits": {"config", "data.sets", "errors", "images"},
    "data.boxfiles": {"boxes", "data.sets", "data.tables", "data.walk", "errors", "files", "text_files"},
    "data.boxed": {
        *("boxes", "config", "configurations", "data.boxfiles", "data.folder", "data.sets", "data.walk", "errors"),
        "images",
    },
    "data.located": {"boxes", "data.sets", "errors", "progress"},
    "data.loading": {"boxes", "colours", "config", "data.sets", "errors", "images", "readers", "rescaled", "team"},
    "data.statistics": {"colours", "data.loading", "data.sets", "errors", "images", "progress", "readers", "team"},
    "data.check": {
        *("config", "data", "data.loading", "data.located", "data.sets", "data.statistics", "data.walk", "errors"),
        *("images", "progress", "readers"),
    },
    "scores": {"errors", "files"},
    "evaluation": {
        *("checkpoints", "config", "data", "data.loading", "errors", "exporting.exported", "files", "machine"),
        *("model_card", "nets", "opening", "posteriors", "prediction", "progress", "protocols", "readers", "runs"),
        *("scores", "summary", "team", "weights"),
    },
    "prediction": {
        *("checkpoints", "config", "data.walk", "errors", "images", "machine", "opening", "paths", "posteriors"),
        *("progress", "protocols"),
    },
    "training": {
        *("checkpoints", "config", "data", "data.loading", "errors", "files", "machine", "nets", "objectives"),
        *("optimisation", "progress", "runs", "stopping", "team"),
    },
    "localisation.windows": {
        *("boxes", "checkpoints", "configurations", "errors", "images", "machine", "nets", "posteriors", "protocols"),
    },
    "localisation.finding": {
        *("checkpoints", "data", "data.loading", "errors", "files", "localisation.windows", "machine", "nets"),
        *("progress", "protocols", "readers"),
    },
    "objectives": {
        *("boxes", "checkpoints", "data", "data.loading", "evaluation", "localisation.finding"),
        *("localisation.settings", "machine", "metrics", "nets", "progress", "protocols", "team"),
    },
    "fc_layers": {"nets"},
    "localisation.balancing": {"fc_layers", "nets"},
    "tasks": {
        *("checkpoints", "config", "data", "data.located", "images", "localisation.balancing", "localisation.settings"),
        *("machine", "nets", "objectives", "progress", "team"),
    },
    "forecast": {"config", "configurations", "data", "data.sets", "machine", "progress"},
    "localisation.guessing": {
        *("boxes", "errors", "files", "localisation.settings", "localisation.windows", "metrics", "progress"),
        "protocols",
    },
    "localisation.training": {
        *("config", "localisation.settings", "preparing", "progress", "recipes", "resuming", "tasks", "team"),
    },
    "localisation.data": {"checkpoints", "config", "data", "data.located", "errors", "files", "progress"},
    "localisation.testing": {
        *("boxes", "checkpoints", "config", "data", "errors", "evaluation", "files", "fusion", "localisation.data"),
        *("localisation.finding", "localisation.guessing", "localisation.settings", "localisation.windows", "machine"),
        *("progress", "protocols", "runs", "scores"),
    },
    "localisation.evaluation": {
        *("checkpoints", "config", "data", "data.imagenet", "errors", "files", "localisation.data"),
        *("localisation.guessing", "localisation.prediction", "localisation.settings", "localisation.testing"),
        *("metrics", "progress", "protocols", "runs", "scores", "server_files"),
    },
    "localisation.prediction": {
        *("checkpoints", "config", "errors", "images", "localisation.guessing", "localisation.settings"),
        *("localisation.testing", "localisation.windows", "machine", "prediction", "progress", "protocols", "runs"),
    },
    "preparing": {
        *("checkpoints", "config", "configurations", "data", "data.sets", "data.statistics", "errors", "files"),
        *("forecast", "machine", "model_card", "nets", "optimisation", "progress", "recipes", "reports.rerun"),
        *("reports.runs", "resuming", "runs", "starting", "stopping", "tasks", "team", "training"),
        *("transfer.fitting", "weights"),
    },
    "transfer.logistic": set(),
    "transfer.fitting": {
        *("checkpoints", "config", "data", "data.loading", "errors", "fc_layers", "images", "machine", "nets"),
        *("posteriors", "progress", "protocols", "readers", "team", "transfer.features", "transfer.logistic"),
        *("transfer.nets", "transfer.svm_learning"),
    },
    "resuming": {"checkpoints", "errors", "files", "progress", "recipes", "runs", "team", "training"},
    "transfer.svm_forms": set(),
    "transfer.svm": {"errors", "transfer.svm_forms"},
    "transfer.svm_learning": {"errors", "transfer.svm", "transfer.svm_forms"},
    "transfer.splits": {
        *("config", "data.caltech", "data.folder", "data.sets", "data.voc", "errors", "images"),
        "transfer.feature_files",
    },
    "transfer.protocols": {
        *("config", "data.voc", "errors", "files", "machine", "metrics", "progress", "transfer.feature_files"),
        *("transfer.features", "transfer.settings", "transfer.splits", "transfer.svm_learning"),
    },
    "transfer.files": {
        *("config", "errors", "files", "runs", "sealed", "transfer.feature_files", "transfer.protocols"),
        "transfer.settings",
    },
    "transfer.describer": {
        *("config", "data.voc", "errors", "images", "machine", "posteriors", "progress", "protocols"),
        *("transfer.features", "transfer.nets", "transfer.settings"),
    },
    "transfer.svm_prediction": {"config", "errors", "prediction", "progress", "transfer.describer", "transfer.files"},
    "asking": {"config", "errors", "hub", "prediction", "runs", "transfer.svm_prediction"},
    "score_maps": {"configurations", "errors", "images", "nets", "posteriors", "prediction", "protocols"},
    "explaining": {"errors", "files", "images", "prediction", "progress", "protocols", "score_maps"},
    "transfer.similar": {
        *("config", "data", "errors", "prediction", "progress", "transfer.describer", "transfer.feature_files"),
        *("transfer.features", "transfer.settings"),
    },
    "reports.svms": {
        *("data", "errors", "files", "images", "reports.charts", "reports.pages", "reports.pictures"),
        *("reports.recorded", "runs", "transfer.similar"),
    },
    "transfer.probing": {
        *("config", "data", "machine", "progress", "reports.svms", "transfer.describing", "transfer.extracting"),
        *("transfer.files", "transfer.nets", "transfer.protocols", "transfer.settings"),
    },
    "reports.pictures": {
        *("boxes", "checkpoints", "config", "data", "data.check", "data.loading", "errors", "evaluation", "files"),
        *("images", "localisation.prediction", "localisation.settings", "localisation.testing", "metrics", "scores"),
        "summary",
    },
    "reports.style": set(),
    "reports.pages": {"errors", "files", "images", "reports.style"},
    "reports.charts": {"reports.pages"},
    "reports.recorded": {"checkpoints", "configurations", "errors", "files", "runs"},
    "reports.rerun": {"checkpoints", "config", "localisation.settings", "recipes"},
    "reports.evaluations": {"errors", "images", "reports.pages", "reports.pictures", "reports.recorded", "scores"},
    "reports.photos": {
        *("checkpoints", "config", "data", "data.check", "data.located", "errors", "progress", "reports.evaluations"),
        *("reports.pages", "reports.pictures", "reports.recorded", "runs"),
    },
    "reports.runs": {
        *("checkpoints", "config", "data", "errors", "files", "localisation.settings", "progress", "reports.charts"),
        *("reports.evaluations", "reports.pages", "reports.photos", "reports.pictures", "reports.recorded"),
        *("reports.rerun", "runs"),
    },
    "reports.compared": {
        *("errors", "localisation.evaluation", "metrics", "progress", "reports.charts", "reports.evaluations"),
        *("reports.pages", "reports.recorded", "scores"),
    },
    "reports.compared_svms": {
        *("errors", "reports.charts", "reports.compared", "reports.pages", "reports.recorded", "reports.svms"),
    },
    "reports.writing": {
        *("errors", "files", "reports.compared", "reports.compared_svms", "reports.recorded", "reports.runs"),
        *("reports.svms", "runs"),
    },
    "completion": {"arguments", "errors"},
    "demo": {
        *("config", "data.check", "data.sets", "evaluation", "experiments.sizes", "images"),
        *("prediction", "preparing", "progress", "recipes"),
        *("reports.pages", "reports.pictures", "reports.recorded", "reports.runs", "summary"),
    },
    "transfer.settings": {"config", "configurations", "errors"},
    "transfer.nets": {"checkpoints", "configurations", "errors", "files", "images", "nets", "weights"},
    "transfer.features": {"errors", "images", "machine", "nets", "posteriors", "transfer.nets", "transfer.settings"},
    "transfer.feature_files": {"errors", "files", "sealed"},
    "transfer.extracting": {
        *("data", "data.loading", "errors", "files", "images", "machine", "posteriors", "progress", "protocols"),
        *("readers", "runs", "team", "transfer.feature_files", "transfer.features", "transfer.nets"),
        "transfer.settings",
    },
    "transfer.describing": {
        *("config", "data", "errors", "machine", "progress", "team", "transfer.extracting", "transfer.nets"),
        "transfer.settings",
    },
    "arguments": {
        *("config", "errors", "flags", "localisation.settings", "nearest", "paths", "recipes"),
        "setting_flags",
    },
    "flags": {
        "config",
        "experiments.sizes",
        "localisation.settings",
        "recipes",
        "serve_settings",
        "setting_flags",
        "transfer.settings",
    },
    "setting_flags": {"config"},
    "serve_settings": {"config", "errors"},
    "serving": {
        *("config", "errors", "image_formats", "progress", "serve_settings", "serving.app", "serving.guard"),
        *("serving.listening", "serving.metrics", "serving.questions"),
    },
    "serving.batching": set(),
    "serving.metrics": set(),
    "serving.openapi": {"serve_settings"},
    "serving.guard": {"progress", "serving.metrics"},
    "serving.listening": {"errors", "serving.guard"},
    "serving.uploads": {"errors", "images", "serve_settings", "serving.batching"},
    "serving.questions": {
        *("asking", "config", "errors", "images", "localisation.prediction", "memory", "prediction", "progress"),
        *("protocols", "score_maps", "serving.thumbnails", "transfer.similar", "transfer.svm_prediction"),
    },
    "serving.thumbnails": {"data", "images"},
    "serving.app": {
        *("errors", "nearest", "progress", "serve_settings", "serving.batching", "serving.guard", "serving.metrics"),
        *("serving.openapi", "serving.questions", "serving.uploads"),
    },
    "exporting": set(),
    "localisation": set(),
    "reports": set(),
    "transfer": set(),
}


def used_by(name: str) -> set[str]:
    """Modules of the package that a module imports, wherever in it."""
    package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join([*base, alias.name])
                found.add(whole if whole in MODULES else ".".join(base))
    return found - {name, ""}


ROOMS = sorted(name for name in MODULES if name not in ("", "__main__", "cli") and not name.startswith("verbs"))


@pytest.mark.parametrize("name", ROOMS)
def test_arrows(name: str) -> None:
    assert used_by(name) <= ARROWS[name] | ANY_ROOM, name


def test_arrows_have_no_circle_and_nothing_imports_the_command_line() -> None:
    done: set[str] = set()
    left = dict(ARROWS)
    while left:
        free = {name for name, uses in left.items() if uses <= done}
        assert free, left
        done |= free
        left = {name: uses for name, uses in left.items() if name not in free}
    assert not any(use == "cli" or use.startswith("verbs") for name in ROOMS for use in used_by(name))


def test_only_the_terminal_prints() -> None:
    for name, path in MODULES.items():
        if name in ("benchmarking.apart", "mat_child"):  # programs, whose words another process reads
            continue
        source = ast.parse(path.read_text())
        calls = [node.func for node in ast.walk(source) if isinstance(node, ast.Call)]
        prints = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        assert not prints or name == "terminal", name
        assert name in ("terminal", "cli") or "sys.std" not in path.read_text(), name


def test_functions_are_small() -> None:
    """Files are as long as their subject."""
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 45, f"{name}.{node.name}"


def test_public_functions_and_classes_say_what_they_do() -> None:
    for name, path in MODULES.items():
        source = ast.parse(path.read_text())
        assert ast.get_docstring(source), name
        for node in source.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node) or name == "cli", f"{name}.{node.name}"


PUBLIC = [
    *("Classifier", "DataSettings", "ImageError", "MachineSettings", "NET_NAMES", "Net", "Scale", "TrainSettings"),
    *("VerydeepError", "benchmark", "check_data", "convert", "create_net", "demo", "evaluate", "evaluate_boxes"),
    *("export", "extract_features"),
    *(
        "find_similar",
        "fuse",
        "joined",
        "learn_svms",
        "load",
        "load_features",
        "load_localiser",
        "load_scores",
        "net_facts",
    ),
    *("open_data", "parse_protocol", "predict", "probe", "read_image", "reproduce", "train", "train_boxes"),
    "write_report",
]


def test_public_names_are_these_and_each_is_there() -> None:
    assert sorted(verydeep.__all__) == PUBLIC
    assert dir(verydeep) == PUBLIC
    for name in PUBLIC:
        assert getattr(verydeep, name) is not None
    with pytest.raises(AttributeError):
        _ = verydeep.nothing_of_the_kind


def test_importing_the_package_and_asking_for_help_load_no_torch() -> None:
    code = "import sys, verydeep, verydeep.arguments as a; a.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_line_names_a_machine_or_a_tool() -> None:
    top = TOP.parents[1]
    tracked = subprocess.run(["git", "-C", str(top), "ls-files"], capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    forbidden = ["/wo" + "rk/", "py" + "pi.org", "pythonho" + "sted"]
    for line in tracked.splitlines():
        path = top / line
        if path.suffix in (".py", ".md", ".toml", ".txt", ".cff", "") and path.is_file():
            text = path.read_text(encoding="utf8")
            assert not any(word in text for word in forbidden), line
