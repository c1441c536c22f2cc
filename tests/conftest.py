"""What holds for all tests."""

import os

# The nets are tiny: on small or busy machines a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")
