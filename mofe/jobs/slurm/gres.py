"""GPUs for clusters whose sbatch knows no --gpus: asked for by --gres, for each node.

A job with the resource `gpu_option: gres` (profiles/slurm) is submitted and started this way.
Snakemake's plugins for Slurm ask by --gpus, or take a --gres that is the same for all jobs of a
rule and leaves the job without its number of GPUs.
"""

import snakemake_executor_plugin_slurm as submits
import snakemake_executor_plugin_slurm_jobstep as starts

GRES = "gres"  # the value of the resource
_by_gpus, _step_by_gpus = submits.set_gres_string, starts.get_gpu_setting


def use() -> None:
    """Have Snakemake's plugins ask for GPUs as a job's resources say."""
    submits.set_gres_string = lambda job: f" {option(job)}" if _wants(job) else _by_gpus(job)
    starts.get_gpu_setting = lambda job: option(job) if _wants(job) else _step_by_gpus(job)


def option(job) -> str:
    """sbatch's and srun's option for the GPUs of a job, whose resource `gpu` counts those of all
    its nodes. Raises ValueError where the nodes cannot have equally many."""
    gpus, nodes = job.resources.get("gpu"), job.resources.get("nodes", 1)
    if gpus % nodes:
        raise ValueError(
            f"{job.name}: gpu is {gpus}, which cannot be spread evenly over nodes: {nodes}; make "
            "gpu (of the whole job) a multiple of nodes"
        )
    kind = [model] if (model := job.resources.get("gpu_model")) else []
    return f"--gres={':'.join(['gpu', *kind, str(gpus // nodes)])}"


def _wants(job) -> bool:
    return job.resources.get("gpu_option") == GRES and bool(job.resources.get("gpu"))
