"""Slurm scripts and command lines. The files in slurm/ are written by hand, never by the tests; the tests on a real
cluster (tests/slurm) submit them."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from engine import launchers
from engine.errors import RequestError
from engine.launchers import slurm
from engine.profile import Profile, decode, load

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "slurm"
EXAMPLES = {path.stem: path for folder in (ROOT / "profiles", GOLDEN) for path in folder.glob("slurm-*.yaml")}
TEXTS = sorted(path.name for path in GOLDEN.iterdir() if path.suffix in (".sbatch", ".srun"))
RUN = "lab-a100-20261124-040355-x7q2"


def profile(options: str, program: str = "path: train.py", more: str = "") -> Profile:
    text = f"version: 1\nname: lab\nlauncher: slurm\nslurm: {{{options}}}\nprogram: {{{program}}}\n{more}"
    return decode(text, "lab.yaml")


def text(asked: Profile, format: str = "sbatch") -> str:
    return slurm.render(slurm.make_plan(asked, RUN), format)


@pytest.mark.parametrize("golden", TEXTS)
def test_an_example_renders_to_its_golden_text(golden: str) -> None:
    name, _, format = golden.partition(".")
    assert text(load(EXAMPLES[name]), format) == (GOLDEN / golden).read_text()


def test_xtuner_gets_the_batch_as_options_of_its_config() -> None:
    asked = profile("nodes: 2, gpus_per_node: 8, style: direct", "kind: xtuner, path: c", "batch: {per_device: 2}\n")
    options = "--cfg-options train_dataloader.batch_size=2 optim_wrapper.accumulative_counts=1"
    assert f" xtuner train c --launcher slurm {options}\n" in text(asked)


def test_the_srun_line_of_xtuner_is_the_documented_one_word_for_word() -> None:
    asked = profile("partition: PART, nodes: 2, gpus_per_node: 8, style: direct", "kind: xtuner, path: CONFIG")
    assert shlex.split(text(asked, "srun")) == shlex.split(
        "srun -p PART --job-name=lab --nodes=2 --gres=gpu:8 --ntasks-per-node=8 --kill-on-bad-exit=1"
        " xtuner train CONFIG --launcher slurm"
    )


@pytest.mark.parametrize("golden", TEXTS)
def test_a_shell_can_read_it(golden: str) -> None:
    subprocess.run(["bash", "-n"], input=(GOLDEN / golden).read_text(), text=True, check=True)


@pytest.mark.parametrize(
    ("style", "tasks", "inside"),
    [("torchrun", "--ntasks-per-node=1", "--nproc_per_node=4"), ("direct", "--ntasks-per-node=4", "--launcher slurm")],
)
@pytest.mark.parametrize("gpus", ["gpus_per_node: 4", "gpus_per_node: 0, ranks_per_node: 4"])
def test_tasks_and_ranks_always_fit_together(style: str, tasks: str, inside: str, gpus: str) -> None:
    for format in ("sbatch", "srun"):
        made = text(profile(f"nodes: 3, {gpus}, style: {style}"), format)
        assert made.count("ntasks-per-node") == made.count(tasks) == 1
        assert inside in made
        assert ("--gres" in made) == ("ranks" not in gpus)
    assert slurm.make_plan(profile(f"nodes: 3, {gpus}, style: {style}"), RUN).world_size == 12


def test_ranks_of_nodes_that_differ_follow_each_other() -> None:
    asked = profile("groups: [{nodes: 1, gpus_per_node: 8}, {nodes: 2, gpus_per_node: 4}]")
    plan = slurm.make_plan(asked, RUN)
    assert [(node.first_rank, node.nproc) for node in plan.nodes] == [(0, 8), (8, 4), (12, 4)]
    assert '--nproc_per_node="$(set -- 8 4 4; shift "$SLURM_NODEID"; echo "$1")"' in plan.texts["sbatch"]
    with pytest.raises(RequestError, match="need a script"):
        slurm.render(plan, "srun")


def test_inside_an_allocation_srun_asks_for_a_step_and_nothing_is_submitted() -> None:
    asked = profile("allocation: 4711, partition: p, nodes: 2, gpus_per_node: 4, time: '90', style: direct")
    step = "--nodes=2 --gres=gpu:4 --ntasks-per-node=4"
    script = text(asked)
    assert "#SBATCH" not in script
    assert "export SLURM_JOB_ID=4711\n" in script
    assert f"\nsrun --jobid=4711 --job-name={RUN} {step} --export=ALL --kill-on-bad-exit=1 " in script
    assert text(asked, "srun").startswith(f"srun --jobid=4711 --job-name=lab {step} --kill-on-bad-exit=1 ")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_every_option_stands_in_both_forms() -> None:
    asked = profile(
        "partition: p, account: a, qos: q, time: '1-0', nodes: 2, gpus_per_node: 4, gpu_type: a100, gpus_by: gpus,"
        " cpus_per_task: 8, mem: 10G, constraint: 'x&y', nodelist: 'n[1-2]', exclude: n3, exclusive: true,"
        " reservation: r, requeue: false, signal: USR1@60, extra: ['--licenses=l'], srun_extra: ['--mpi=none']"
    )
    script, line = text(asked), shlex.split(text(asked, "srun"))
    for option in [
        "--partition=p",
        "--account=a",
        "--qos=q",
        "--time=1-0",
        "--nodes=2",
        "--gpus-per-node=a100:4",
        "--cpus-per-task=8",
        "--mem=10G",
        "--constraint=x&y",
        "--nodelist=n[1-2]",
        "--exclude=n3",
        "--exclusive",
        "--reservation=r",
        "--signal=USR1@60",
        "--licenses=l",
    ]:
        assert f"#SBATCH {option}\n" in script
        assert option in line or option == "--partition=p"
    assert "#SBATCH --no-requeue\n" in script
    assert "export SRUN_CPUS_PER_TASK=8\n" in script
    assert "--mpi=none" in line
    assert " --mpi=none \\\n" in script
    assert line[:3] == ["srun", "-p", "p"]


def test_hostile_values_stay_values() -> None:
    asked = profile(
        r"""account: 'a "b" \ #c $(touch x)', nodelist: '`id`', style: direct""",
        """kind: command, path: echo, args: ["$(touch x)", "; touch x", "TASK"]""",
        "env: {A: '$(touch x)'}\n",
    )
    script = text(asked)
    assert r'#SBATCH --account="a \"b\" \\ #c $(touch x)"' in script
    assert '#SBATCH --nodelist="`id`"' in script
    assert "'$(touch x)' '; touch x' TASK" in script
    assert shlex.split(text(asked, "srun"))[0] == "A=$(touch x)"
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_task_that_holds_the_end_mark_is_read_whole() -> None:
    asked = profile("", more='env: {A: "x\\nTASK\\ny"}\n')
    assert "\nTASK_\n" in text(asked)


def test_a_secret_is_a_name_that_must_have_a_value() -> None:
    script = text(profile("", more="secrets: [HF_TOKEN]\n"))
    assert 'export HF_TOKEN="${HF_TOKEN:?}" &&\n' in script


def test_a_launcher_that_the_profile_names_itself_is_left_alone() -> None:
    script = text(profile("style: direct", "path: t.py, args: [--launcher=slurm, x]"))
    assert "exec python3 t.py --launcher=slurm x\n" in script
    assert "exec python3 t.py --launcher slurm x\n" in text(profile("style: direct", "path: t.py, args: [x]"))


def test_xtuner_below_torchrun_gets_its_variables() -> None:
    script = text(profile("nodes: 2, gpus_per_node: 8", "kind: xtuner, path: c"))
    for line in ("NNODES=2", 'NODE_RANK="$SLURM_NODEID"', "NPROC_PER_NODE=8", 'ADDR="$MASTER_ADDR"'):
        assert f"export {line} &&\n" in script
    assert 'exec ${RANKDECK_PROGRAM:+python3 -I -S "$RANKDECK_PROGRAM"} xtuner train c\n' in script


def test_one_rank_of_xtuner_is_put_below_torchrun_which_keeps_its_output_and_end() -> None:
    script = text(profile("nodes: 1, gpus_per_node: 1", "kind: xtuner, path: c"))
    assert "exec torchrun " in script
    assert '--no_python ${RANKDECK_PROGRAM:+python3 -I -S "$RANKDECK_PROGRAM"} xtuner train c\n' in script


def test_in_a_container_xtuner_is_started_as_it_is() -> None:
    script = text(profile("nodes: 2, gpus_per_node: 8, container: run it", "kind: xtuner, path: c"))
    assert "exec run it xtuner train c\n" in script


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("extra: ['--ntasks=3']", "slurm.extra[0]: found '--ntasks=3': the number of ranks follows"),
        ("extra: ['-N2']", "slurm.extra[0]: found '-N2': set slurm.nodes instead"),
        ("extra: ['--array=1-3']", "a run is one job"),
        ("srun_extra: [x]", "slurm.srun_extra[0]: found 'x'; allowed: a whole option"),
        ("time: soon", "slurm.time: found 'soon'; allowed: 90, 12:00:00"),
        ("mem: lots", "slurm.mem"),
        ("signal: B:USR1@9", "slurm.signal"),
        ("gpu_type: 'a b'", "slurm.gpu_type"),
        ("ranks_per_node: 0", "slurm.ranks_per_node: found 0"),
        ("nodes: 2, groups: [{nodes: 1}]", "slurm.nodes: groups say how many"),
        ("style: direct, groups: [{nodes: 1}]", "slurm.style: nodes that differ need style torchrun"),
        ("allocation: 0", "slurm.allocation: found 0; allowed: the number of a running job"),
        ("allocation: 7, groups: [{nodes: 1}]", "slurm.allocation: nodes that differ need a job of their own"),
        ("groups: [{gpus_per_node: -1}]", "slurm.groups[0].gpus_per_node: found -1"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(options: str, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        profile(options)
    assert words in refused.value.text


def test_restarts_and_c10d_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(RequestError, match="max_restarts"):
        profile("style: direct", more="rendezvous: {max_restarts: 1}\n")
    with pytest.raises(RequestError, match=r"rendezvous\.backend"):
        profile("", more="rendezvous: {backend: c10d}\n")


def test_the_default_form_is_the_script() -> None:
    assert launchers.find("slurm").FORMATS[0] == "sbatch"
