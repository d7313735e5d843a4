import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # shm_model.py, shared by several tests
