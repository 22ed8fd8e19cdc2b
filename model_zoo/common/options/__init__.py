"""The sections of a recipe, a file each; none of them imports MindSpore."""
