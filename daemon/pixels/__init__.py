"""Bytes of pictures to the dataset's planes: arithmetic on eight pixels at a time."""
