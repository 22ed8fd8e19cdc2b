"""Rules of single values that ms_kfac shares with recipes, read without the slow import of MindSpore."""

from __future__ import annotations

from model_zoo.common.methods import run_module

_RULES = run_module("values.py")
LARGEST_COUNT = _RULES["LARGEST_COUNT"]
as_float32 = _RULES["as_float32"]
float32_fault = _RULES["float32_fault"]
json_values = _RULES["json_values"]
shown = _RULES["shown"]
