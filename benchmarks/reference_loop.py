"""The loop most people start from: diffusers, peft, float32, picture and caption encoded again at every step.

Nothing is made slower than it has to be: encoders run without gradients, only the adapter trains, torch's own
AdamW. It is given the noise, timesteps and first adapter weights of our loop, so that the losses can be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy
import torch
from diffusers import DDPMScheduler
from diffusers.utils.logging import disable_progress_bar
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from benchmarks.dialogue import answer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_sd import SD15, TINY, diffusers_pipeline

LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]


def main() -> None:
    """Load with diffusers, attach with peft, answer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    plan = json.loads((chosen.work / "plan.json").read_text(encoding="utf-8"))
    tensors = load_file(chosen.work / "plan.safetensors")
    disable_progress_bar()
    pipeline = diffusers_pipeline(chosen.base, chosen.work / "configs", TINY if chosen.tiny else SD15)
    unet, vae, text, tokenizer = pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer
    for module in (unet, vae, text):
        module.float().requires_grad_(False)
    unet.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=LAYERS))
    unet.train()
    trained = load_factors(unet, tensors)
    optimiser = torch.optim.AdamW(trained, lr=chosen.rate, weight_decay=0.01)
    noising = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)

    def one_step(index: int) -> float:
        pixels = read_picture(plan[index]["picture"], chosen.resolution)
        words = tokenizer(
            plan[index]["caption"], padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        )
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
            states = text(words.input_ids)[0]
        noise, timesteps = tensors[f"noise.{index}"], tensors[f"timesteps.{index}"]
        noisy = noising.add_noise(latents, noise, timesteps)
        loss = F.mse_loss(unet(noisy, timesteps, states).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    answer(one_step, trained=sum(parameter.numel() for parameter in trained))


def load_factors(unet: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> list[torch.nn.Parameter]:
    """Give every factor its recorded value; exactly the recorded ones train."""
    given = {
        name.removeprefix("factor.denoiser/"): value for name, value in tensors.items() if name.startswith("factor")
    }
    trained = []
    for name, parameter in unet.named_parameters():
        if not parameter.requires_grad:
            continue
        layer, _, factor = name.removesuffix(".default.weight").rpartition(".lora_")
        with torch.no_grad():
            parameter.copy_(given.pop(f"{layer}.{'down' if factor == 'A' else 'up'}").view_as(parameter))
        trained.append(parameter)
    assert not given, f"the reference has no layer for {sorted(given)[:3]}"
    return trained


def read_picture(path: str, side: int) -> torch.Tensor:
    """[1, 3, side, side] in [-1, 1]; the benchmark's pictures have this size already."""
    with Image.open(path) as image:
        pixels = numpy.asarray(image.convert("RGB").resize((side, side)), dtype=numpy.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1


if __name__ == "__main__":
    main()
