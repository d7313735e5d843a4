"""What a simulated camera offers: facts that the check of a configuration and the simulator share.

Apart from the models, so that the simulator starts without them.
"""

SIM_RATES = (1.0, 240.0)
SIM_LEAST_PX = 160
"""A simulated camera's stamp takes a corner of 160x48 pixels, and has to fit when turned."""
