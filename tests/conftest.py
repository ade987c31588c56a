"""What holds for every test: a quiet, offline, single-threaded process with its own cache."""

import atexit
import os
import shutil
import tempfile

# Set before any library reads them: the two pytest workers share the cores, pictures are drawn without a display,
# and a test that reaches for the network fails at once instead of depending on it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["INLAY_CACHE"] = tempfile.mkdtemp(prefix="inlay-tests-")
atexit.register(shutil.rmtree, os.environ["INLAY_CACHE"], ignore_errors=True)
