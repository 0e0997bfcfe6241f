"""The autoencoder's objective: the picture back, its edges too, and latents near a standard normal.

A KL-regularised autoencoder (Kingma & Welling, 2013, arXiv 1312.6114, equation 10; Rombach et al., 2022,
arXiv 2112.10752) with a distance on image gradients in place of a learned perceptual loss, which would need weights.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tunesmith.engines.protocol import Batch, Loss, Model
from tunesmith.engines.stable_diffusion.choices import knobs
from tunesmith.engines.stable_diffusion.encode import to_unit
from tunesmith.numeric.losses import weighted_mean
from tunesmith.numeric.measures import psnr_db
from tunesmith.numeric.rng import BatchRng
from tunesmith.recipe.schema import Recipe


def autoencoder_loss(model: Model, batch: Batch, recipe: Recipe, rng: BatchRng) -> Loss:
    """Weighted mean over items of reconstruction, edges, KL (mean per latent number) and log^2 of the latents' size."""
    chosen, module = knobs(recipe), model.components["autoencoder"]
    device = next(module.parameters()).device
    pictures = to_unit(batch.tensors["pixels"]).to(device)
    posterior = module.encode(pictures).latent_dist  # type: ignore[operator]
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    noise = batch.tensors.get("noise")
    if noise is None:
        noise = rng.normal("latents", mean.shape[1:])
    latents = mean + torch.exp(0.5 * log_variance) * noise.to(mean)
    rebuilt = module.decode(latents.to(posterior.mean.dtype)).sample.float()  # type: ignore[operator]
    distance = _absolute if chosen.reconstruction == "l1" else _square
    rebuilding = distance(rebuilt, pictures)
    edges = _edges(rebuilt, pictures)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).flatten(1).mean(1)
    # The noise schedule expects latents of unit size, and a weak KL leaves them at two or three.
    size = (mean.square() + log_variance.exp()).flatten(1).mean(1)
    scale = size.log().square()
    per_item = rebuilding + chosen.edge_weight * edges + chosen.kl_weight * kl + chosen.scale_weight * scale
    named = {
        "reconstruction": rebuilding.mean().detach(),
        "edges": edges.mean().detach(),
        "kl": kl.mean().detach(),
        "latent_std": latents.detach().std(),
    }
    return Loss(weighted_mean(per_item, batch.weights.to(device)), per_item.detach(), named)


def _absolute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(a, b, reduction="none").flatten(1).mean(1)


def _square(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(a, b, reduction="none").flatten(1).mean(1)


def _edges(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference [batch] of the pictures' gradients along both axes."""
    across = _absolute(a.diff(dim=-1), b.diff(dim=-1))
    down = _absolute(a.diff(dim=-2), b.diff(dim=-2))
    return 0.5 * (across + down)


@torch.no_grad()
def reconstruction_psnr_db(model: Model, batch: Batch, recipe: Recipe) -> float:
    """PSNR in dB of pictures rebuilt from their mean latents; higher is better."""
    del recipe
    module = model.components["autoencoder"]
    weight = next(module.parameters())
    pictures = to_unit(batch.tensors["pixels"]).to(weight.device)
    latents = module.encode(pictures.to(weight.dtype)).latent_dist.mean  # type: ignore[operator]
    rebuilt = module.decode(latents).sample.float().clamp(-1.0, 1.0)  # type: ignore[operator]
    return psnr_db(rebuilt, pictures, peak=2.0)
