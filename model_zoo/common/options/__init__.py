"""The sections of a recipe, one file each; none of them imports MindSpore."""
