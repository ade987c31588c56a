"""What a diffusion model can be trained to predict, by the names of diffusers' schedulers.

With noisy = alpha * clean + sigma * noise:

* ``epsilon``: the noise (Ho et al. 2020, arXiv 2006.11239);
* ``sample``: the clean sample, "x0" in publications;
* ``v_prediction``: alpha * noise - sigma * clean on a variance-preserving path (Salimans and Ho 2022, arXiv
  2202.00512);
* ``flow``: noise - clean on a rectified-flow path (Liu et al. 2022, arXiv 2209.03003).
"""

from typing import Literal

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
