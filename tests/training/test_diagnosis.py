"""The doctor's sentences for machines that are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunesmith.training.diagnosis import MachineFacts, diagnose, gather_facts

PLAIN = MachineFacts(
    system="Linux",
    machine="x86_64",
    wsl=False,
    python="3.11.7",
    torch="2.13.0",
    torch_cuda=None,
    cuda_works=False,
    driver_cuda=None,
    capability=None,
    kernels=(),
    mps_built=False,
    mps_works=False,
    long_paths=True,
    missing=("bitsandbytes",),
    memory_bytes=24 << 30,
    disk_free_bytes=100 << 30,
    disk_rate_bytes=300e6,
)
CUDA = replace(
    PLAIN,
    torch_cuda="12.8",
    cuda_works=True,
    driver_cuda="12.8",
    capability="sm_90",
    kernels=("sm_80", "sm_90"),
    missing=(),
)

WHEELS = [("13.1", "cu130"), ("12.9", "cu128"), ("12.6", "cu126"), ("11.8", "cpu")]  # driver, index


def said(facts: MachineFacts, topic: str) -> tuple[str, str]:
    found = [one for one in diagnose(facts) if one.topic == topic]
    return found[0].words, found[0].do


def test_a_plain_machine_has_nothing_to_mend() -> None:
    assert [one.topic for one in diagnose(PLAIN)] == ["system", "gpu", "memory", "disk"]
    assert not any(one.do for one in diagnose(PLAIN))
    assert not any(one.do for one in diagnose(CUDA))
    assert "no GPU" in said(PLAIN, "gpu")[0]
    assert "sm_90" in said(CUDA, "gpu")[0]


@pytest.mark.parametrize(
    ("driver", "wheel"), [("13.1", "cu130"), ("12.9", "cu128"), ("12.6", "cu126"), ("11.8", "cpu")]
)
def test_a_cpu_build_beside_a_driver(driver: str, wheel: str) -> None:
    words, do = said(replace(PLAIN, torch="2.13.0+cpu", driver_cuda=driver), "gpu")
    assert "CPU build" in words
    assert do.endswith(f"/{wheel}")


def test_a_driver_older_than_torch_and_one_that_hides() -> None:
    words, do = said(replace(PLAIN, torch_cuda="13.0", driver_cuda="12.6"), "gpu")
    assert "newer than the driver" in words
    assert "update the NVIDIA driver" in do
    assert "cu126" in do
    words, do = said(replace(PLAIN, torch_cuda="12.6", driver_cuda="12.8"), "gpu")
    assert "still finds no GPU" in words
    assert "CUDA_VISIBLE_DEVICES" in do


def test_a_gpu_that_torch_has_no_kernels_for() -> None:
    words, do = said(replace(CUDA, capability="sm_120"), "gpu")
    assert "sm_120" in words
    assert do
    # Kernels of the same family and an older minor version run.
    assert not said(replace(CUDA, capability="sm_86"), "gpu")[1]
    assert said(replace(CUDA, capability="sm_75"), "gpu")[1]


def test_apple_windows_and_wsl() -> None:
    mac = replace(PLAIN, system="Darwin", machine="arm64", mps_built=True)
    assert said(replace(mac, mps_works=True), "gpu") == ("Apple GPU through MPS", "")
    assert "too old" in said(mac, "gpu")[0]
    assert "macOS on arm64" in said(mac, "system")[0]
    assert "without it" in said(replace(mac, mps_built=False), "gpu")[0]
    words, do = said(replace(PLAIN, system="Windows", long_paths=False), "system")
    assert "260" in words
    assert "LongPathsEnabled" in do
    assert "/mnt" in said(replace(PLAIN, wsl=True), "system")[0]


def test_wheels_are_missed_only_where_they_would_run() -> None:
    words, do = said(replace(CUDA, missing=("bitsandbytes",)), "wheels")
    assert "8-bit AdamW" in words
    assert do == "pip install bitsandbytes"


@pytest.mark.parametrize(
    ("change", "topic", "part"),
    [
        ({"memory_bytes": 4 << 30}, "memory", "too little"),
        ({"disk_free_bytes": 2 << 30}, "disk", "only 2.0 GiB"),
        ({"disk_rate_bytes": 20e6}, "disk", "slow: 20 MB/s"),
    ],
)
def test_little_room(change: dict[str, float], topic: str, part: str) -> None:
    words, do = said(replace(PLAIN, **change), topic)
    assert part in words
    assert do


def test_facts_of_this_machine() -> None:
    facts = gather_facts(memory_bytes=1, disk_free_bytes=2, disk_rate_bytes=3.0)
    assert facts.python.count(".") == 2
    assert (facts.memory_bytes, facts.disk_free_bytes, facts.disk_rate_bytes) == (1, 2, 3.0)
    assert all(one.words for one in diagnose(facts))
