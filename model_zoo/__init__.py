"""Networks, recipes and commands of the zoo; run the commands from the root of the repository."""

# These are loaded before Python puts the working folder in front of its search path.
import os
import sys
from importlib.util import find_spec


def _named_on_the_command_line() -> bool:
    # While `python -m` looks for the module to run, it imports the packages around it.
    frame = sys._getframe(2).f_back
    while frame is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
        frame = frame.f_back
    return sys.argv[:1] == ["-m"] and frame is not None and frame.f_globals.get("__name__") == "runpy"


def _leave_out_the_working_folder() -> None:
    """Imports nothing from the folder that `python -m model_zoo.train` is called in.

    A `yaml.py` there would be run otherwise. Python 3.11 has `-P` for that. The root of the repository stays.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if getattr(sys.flags, "safe_path", False) or not _named_on_the_command_line():
        return
    if sys.path[0] == os.getcwd() and not os.path.samefile(sys.path[0], root):
        del sys.path[0]


# Packages by the modules that they bring.
_PACKAGES = {
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "mindspore": "mindspore",
    "ms_kfac": "ms_kfac",
    "sklearn": "scikit-learn",
    "yaml": "PyYAML",
}


def _require_packages() -> None:
    """Names what is missing in one sentence, instead of by a traceback of the first import."""
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if not missing:
        return
    sentence = f"the model zoo needs {', '.join(missing)}; install ms_kfac[zoo]"
    if _named_on_the_command_line():
        raise SystemExit(f"error: {sentence}.")
    raise ModuleNotFoundError(sentence, name=missing[0])


_leave_out_the_working_folder()
_require_packages()
