"""From frames in a ring to the pictures of a dataset: exactly one per row, never one without a row.

The flow is one way: ring slot -> colour (YUV 4:2:0) -> codec -> sink (mp4 or images) -> staging.
"""
