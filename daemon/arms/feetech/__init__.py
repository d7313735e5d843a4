"""Feetech STS bus: serial port, line in step, packets. Packets are made and read by the SDK."""
