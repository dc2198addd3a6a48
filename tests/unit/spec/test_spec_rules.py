"""One edit to right files, one fault: each rule with its file, line, key and message."""

# Messages stand as users read them, and are easier to compare unwrapped.
# ruff: noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Files

EPOCHS = "epochs: {type: int, low: 2, high: 5}"
DECAY = "weight_decay: {type: float, low: 0, high: 0.1}"
BATCH = "batch_size: {type: categorical, choices: [8, 16, 32]}"
PRUNER = "type: asha\n  first_rung: 20\n  compare_at: progress"
FULL = "full: {type: float, low: 5e-6, high: 1e-4, log: true}"
METHOD = "method: {type: categorical, choices: [feature-extraction, full]}"
START = "{method: full, learning_rate: 3e-5, batch_size: 16}"
OBJECTIVE = "objective: {metric: macro_f1, direction: maximize}"
F1 = "{metric: macro_f1, direction: maximize}"
SIZE = "{metric: trainable_parameters, direction: minimize}"
P = "study.parameters"

STUDY_CASES = [
    # objective
    ("macro_f1", "macro_f2", 'objective.metric: metric "macro_f2" is not measured for task classification; did you mean'
     ' "macro_f1"? Known: accuracy, loss, macro_f1, mcc.'),
    (OBJECTIVE, "objective: []", "objective: an empty list is not a mapping. Write it as"
     " `objective: {metric: accuracy, direction: maximize}`."),
    (OBJECTIVE, "objective: [loss]", 'objective.0: "loss" is not a mapping.'),
    (OBJECTIVE, f"objective: [{F1}, {{metric: loss}}]", "objective.1.direction: this key is missing. Add it"),
    (OBJECTIVE, f"objective: [{F1}, {{metrik: loss, direction: minimize}}]", 'objective.1.metrik: key "metrik" is unknown;'
     ' did you mean "metric"? Known: direction, metric, value.'),
    (OBJECTIVE, f"objective: [{F1}, {{metric: los, direction: minimize}}]", 'objective.1.metric: metric "los" is not measured'
     ' for task classification; did you mean "loss"? Known: accuracy, loss, macro_f1, mcc, model_mib, train_seconds,'
     " trainable_parameters."),
    (OBJECTIVE, f"objective: [{F1}, {F1}]", "objective.1.metric: macro_f1 is an objective already. Remove one of the two."),
    (OBJECTIVE, f"objective: [{F1}, {{metric: loss, direction: minimize, value: last}}]", "objective.1.value: value is last, but"
     " that of macro_f1 is best: all values of a trial are those of one step, which macro_f1 chooses. Give both the same."),
    (OBJECTIVE, f"objective: [{SIZE}, {F1}]", "objective.0.metric: trainable_parameters is a cost and says nothing of how good a"
     " trial is: the first objective must, since trials are pruned by it. Put one of these first, and the cost after it:"
     " accuracy, loss, macro_f1, mcc."),
    (OBJECTIVE, f"objective: {SIZE}", "objective.metric: trainable_parameters is a cost and says nothing of how good"),
    ("direction: maximize", "direction: max", 'objective.direction: direction "max" is unknown. Known: maximize, minimize.'),
    ("direction: maximize", "direction: 1", "objective.direction: 1 is not one of maximize, minimize."),
    ("metric: macro_f1", "metric: ''", "objective.metric: metric is \"\" but must be something: it may not be empty."),
    ("objective: {metric: macro_f1, direction: maximize}", "objective: accuracy",
     'objective: "accuracy" is not a mapping. Write it as `objective: {metric: accuracy, direction: maximize}`.'),
    # sampler and pruner
    ("sampler: {type: tpe, seed: 0}", "sampler: tpe", 'sampler: "tpe" is not a mapping. Write it as `sampler: {type: tpe}`.'),
    ("seed: 0", "sead: 0", 'sampler.sead: key "sead" is unknown; did you mean "seed"? Known: seed, startup_trials, type.'),
    ("seed: 0", "seed: 1.5", "sampler.seed: 1.5 is not a whole number."),
    ("seed: 0", "seed: true", "sampler.seed: true is not a whole number."),
    ("seed: 0", "seed: '0'", 'sampler.seed: "0" is not a whole number.'),
    ("seed: 0", "seed: 5_000_000_000", "sampler.seed: seed is 5000000000 but must be below 4294967296."),
    ("type: asha", "type: ahsa", 'pruner.type: pruner "ahsa" is unknown; did you mean "asha"?'
     " Known: asha, hyperband, median, none, patient, percentile, threshold."),
    ("type: asha\n  ", "", 'pruner: this key is missing "type". Add one of: asha, hyperband, median, none, patient,'
     " percentile, threshold."),
    (PRUNER, "[asha]", "pruner: a list is not a mapping. Write it as `pruner: {type: asha}`."),
    ("first_rung: 20", "first_rung: 25", "pruner.first_rung: first_rung (25) must be a multiple of eval_every (10), where"
     " reports fall. Write 20."),
    ("first_rung: 20", "first_rung: 100", "pruner.first_rung: first_rung is 100, but with `compare_at: progress` it counts"
     " percent, and 100 is the end. Give less."),
    ("first_rung: 20", "reduction_facter: 4", 'pruner.reduction_facter: key "reduction_facter" is unknown; did you mean'
     ' "reduction_factor"? Known: compare_at, first_rung, reduction_factor, type.'),
    (PRUNER, "type: percentile\n  percentile: 100", "pruner.percentile: percentile is 100 but must be below 100."),
    (PRUNER, "type: threshold", "pruner: a threshold pruner needs `lower` or `upper`, or it stops nothing."),
    (PRUNER, "type: threshold\n  lower: 2\n  upper: 1", "pruner.lower: lower (2.0) must be below upper (1.0). Swap them."),
    (PRUNER, "type: patient\n  then: {type: threshold}", "pruner.then: a threshold pruner needs `lower` or `upper`, or it"
     " stops nothing."),
    (PRUNER, "type: patient\n  then: {type: median, compare_at: progress}", "pruner.then.compare_at: this differs from the"
     " pruner's own compare_at (examples). Leave it out here."),
    (PRUNER, "type: patient\n  then: {type: meidan}", 'pruner.then.type: then "meidan" is unknown; did you mean "median"?'
     " Known: asha, hyperband, median, percentile, threshold."),
    (PRUNER, "type: patient\n  then: {type: median, warm: 3}", 'pruner.then.warm: key "warm" is unknown; did you mean'
     ' "warmup"? Known: compare_at, startup_trials, type, warmup.'),
    # a parameter's shape
    (EPOCHS, "epochs: 3", "parameters.epochs: 3 is not a mapping. Write it as `epochs: {type: float, low: 0, high: 0.1}`."
     " A value that is not searched belongs under `training`."),
    (EPOCHS, "epochs: {low: 2, high: 5}", 'parameters.epochs: a parameter needs a "type" (float, int or categorical), a'
     ' "value" (derived) or "by" (a range for each branch), and this has none of them.'),
    ("type: int, low: 2", "type: integer, low: 2", 'parameters.epochs.type: type "integer" is unknown; did you mean "int"?'
     " Known: categorical, float, int."),
    ("low: 2, high: 5", "low: two, high: 5", 'parameters.epochs.low: "two" is not a whole number.'),
    ("low: 0, high: 0.1", "low: 0, high: '0.1'", 'parameters.weight_decay.high: "0.1" is not a number.'),
    ("low: 0, high: 0.1", "low: 0, high: 0.1, log: 1", "parameters.weight_decay.log: 1 is not true or false."),
    ("choices: [8, 16, 32]", "choices: 8", "parameters.batch_size.choices: 8 is not a list. Write it as"
     " `choices: [8, 16, 32]`."),
    ("choices: [8, 16, 32]", "choices: []", "parameters.batch_size.choices: choices is an empty list but must be something:"
     " it may not be empty."),
    ("choices: [8, 16, 32]", "choices: [8, {a: 1}]", "parameters.batch_size.choices.1: a mapping is not text, a whole number, a"
     " number or true or false."),
    (FULL, "full: {type: float, low: 5e-6, hi: 1e-4}", 'parameters.learning_rate.full.hi: key "hi" is unknown; did you mean'
     ' "high"? Known: high, log, low, step, type, when.'),
    # ranges
    ("low: 2, high: 5", "low: 5, high: 2", "parameters.epochs.low: low (5) must be below high (2). Swap them or widen the"
     " range."),
    ("low: 2, high: 5", "low: 5, high: 5", "parameters.epochs.low: low and high are both 5, which leaves nothing to search."
     " Fix it under `training` instead."),
    ("low: 0, high: 0.1", "low: 0, high: 0.1, log: true", "parameters.weight_decay.low: low is 0.0, but a log scale needs low"
     " above 0. Raise it or drop `log`."),
    ("low: 0, high: 0.1", "low: 0.01, high: 0.1, step: 0.01, log: true", "parameters.weight_decay.step: step (0.01) and"
     " `log: true` exclude each other. Keep one of them."),
    ("low: 0, high: 0.1", "low: 0, high: 0.1, step: 0.03", "parameters.weight_decay.high: high (0.1) is not low plus a whole"
     " number of steps of 0.03. Write `high: 0.09`, or another step."),
    ("low: 0, high: 0.1", "low: 0, high: 0.1, step: 0.2", "parameters.weight_decay.step: step (0.2) is wider than the range"
     " from 0.0 to 0.1. Make it smaller."),
    ("low: 0, high: 0.1", "low: 0, high: 0.1, step: 1e-30", "parameters.weight_decay.step: step (1e-30) makes over a billion"
     " values. Leave it out, or widen it."),
    ("low: 0, high: 0.1", "low: 0, high: 0.1, step: 0", "parameters.weight_decay.step: step is 0 but must be above 0."),
    ("[8, 16, 32]", "[8, 16, 8]", "parameters.batch_size.choices.2: the choice 8 is given twice. Remove one."),
    ("[8, 16, 32]", "[8, 16, 16.0]", "parameters.batch_size.choices.2: the choice 16.0 is given twice (it equals 16). Remove"
     " one."),
    ("[8, 16, 32]", "[16]", "parameters.batch_size.choices: the only choice is 16, which leaves nothing to search. Fix it"
     " under `training`."),
    # values of a setting
    (FULL, "full: {type: float, low: -1, high: 1e-4}", "parameters.learning_rate.full.low: learning_rate is -1.0 but must be"
     " above 0."),
    ("[8, 16, 32]", "[0, 16]", "parameters.batch_size.choices.0: batch_size is 0 but must be at least 1."),
    ("[8, 16, 32]", "[big, 16]", 'parameters.batch_size.choices.0: "big" is not a whole number.'),
    (BATCH, "batch_size: {type: float, low: 8, high: 16}", "parameters.batch_size.type: batch_size must be a whole number. Use"
     " `type: int`."),
    (EPOCHS, "epochs: {type: int, low: 0, high: 5}", "parameters.epochs.low: epochs is 0 but must be above 0."),
    (EPOCHS, "warmup_steps: {type: int, low: -5, high: 5}", "parameters.warmup_steps.low: warmup_steps is -5 but must be at"
     " least 0."),
    (METHOD, "method: {type: categorical, choices: [feature-extraction, full, adapter]}", "parameters.method.choices.2: method"
     ' "adapter" is unknown. Known: feature-extraction, full, lora.'),
    (EPOCHS, "fp16: {type: categorical, choices: [true, 0]}", "parameters.fp16.choices.1: 0 is not true or false, which fp16"
     " must be."),
    (EPOCHS, "lr_scheduler_type: {type: categorical, choices: [linear, cosin]}", "parameters.lr_scheduler_type.choices.1:"
     ' lr_scheduler_type "cosin" is unknown; did you mean "cosine"? Known: constant, constant_with_warmup, cosine,'
     " cosine_warmup_with_min_lr, cosine_with_min_lr, cosine_with_restarts, greedy, inverse_sqrt, linear, polynomial,"
     " reduce_lr_on_plateau, warmup_stable_decay."),
    (EPOCHS, "lr_scheduler_type: {type: categorical, choices: [linear, greedy]}", "parameters.lr_scheduler_type.choices.1:"
     ' lr_scheduler_type "greedy" cannot be used: it needs transformers\' own evaluations, which a sweep does not run.'
     " Choose another."),
    (EPOCHS, "epochs: {value: -1}", "parameters.epochs.value: epochs is -1 but must be above 0."),
    # names
    (EPOCHS, "epoch: {type: int, low: 2, high: 5}", 'parameters.epoch: setting "epoch" is unknown; did you mean "epochs"?'),
    (EPOCHS, "num_train_epochs: {type: int, low: 2, high: 5}", "parameters.num_train_epochs: num_train_epochs is finesweep's to"
     " set: write `epochs`."),
    (EPOCHS, "warmup_steps: {type: int, low: 0, high: 9}\n  warmup_ratio: {type: float, low: 0, high: 0.1}", "parameters.warmup_ratio: warmup_ratio and warmup_steps are two"
     " ways to say one thing. Keep one of them."),
    (EPOCHS, "seed: {type: int, low: 2, high: 5}", "parameters.seed: seed cannot be searched: it comes from the sweep, so that"
     " trials differ by their parameters alone. Fix it under `training`."),
    (EPOCHS, "xq: {type: int, low: 2, high: 5}", 'parameters.xq: setting "xq" is unknown. Known:'),
    # conditions, branches, derived values
    ("when: {method: feature-extraction}", "when: {metod: feature-extraction}", "parameters.unfrozen_layers.when.metod: parameter"
     ' "metod" is unknown; did you mean "method"?'),
    ("when: {method: feature-extraction}", "when: {method: lora}", "parameters.unfrozen_layers.when.method: method never is"
     ' "lora". Its choices: "feature-extraction", "full".'),
    ("when: {method: feature-extraction}", "when: {epochs: 9}", "parameters.unfrozen_layers.when.epochs: epochs never is 9. It is"
     " a whole number from 2 to 5."),
    ("when: {method: feature-extraction}", "when: {weight_decay: 9}", "parameters.unfrozen_layers.when.weight_decay: weight_decay"
     " never is 9. It lies from 0.0 to 0.1."),
    ("when: {method: feature-extraction}", "when: {learning_rate: 9}", "parameters.unfrozen_layers.when.learning_rate:"
     " learning_rate never is 9. Name a value that it can have."),
    ("when: {method: feature-extraction}", "when: {method: []}", "parameters.unfrozen_layers.when.method: an empty list of values"
     " is never met. Name at least one."),
    ("when: {method: feature-extraction}", "when: {bf16: maybe}", "parameters.unfrozen_layers.when.bf16: \"maybe\" is not true or"
     " false, which bf16 must be."),
    ("when: {method: feature-extraction}", "when: full", 'parameters.unfrozen_layers.when: "full" is not a mapping. Write it as'
     " `when: {method: full}`."),
    ("by: method", "by: metod", 'parameters.learning_rate.by: parameter "metod" is unknown; did you mean "method"?'),
    ("by: method", "by: epochs", "parameters.learning_rate.by: epochs has no choices to branch by; `by` must name a categorical"
     " parameter."),
    (FULL, "ful: {type: float, low: 5e-6, high: 1e-4}", 'parameters.learning_rate.ful: branch "ful" is no choice of method; did'
     ' you mean "full"? Known: feature-extraction, full.'),
    (FULL, "full: {type: float, low: 5e-6, high: 1e-4, when: {epoch: 3}}", "parameters.learning_rate.full.when.epoch: parameter"
     ' "epoch" is unknown; did you mean "epochs"?'),
    (DECAY, "weight_decay: {value: 2 * learningrate}", "parameters.weight_decay.value: the expression's name \"learningrate\" is"
     ' unknown; did you mean "learning_rate"?'),
    (DECAY, "weight_decay: {value: 2 *}", 'parameters.weight_decay.value: "2 *" is not an expression. Write one like'
     " 2 * lora_rank; text needs quotes of its own."),
    (DECAY, "weight_decay: {value: null}", "parameters.weight_decay.value: null is no value to derive. Write an expression such"
     ' as "2 * batch_size".'),
    (DECAY, "weight_decay: {value: 0.01 * weight_decay}", "parameters.weight_decay: parameters depend on each other in a circle:"
     " weight_decay needs weight_decay. Break it at one of them."),
    (DECAY, "weight_decay: {type: float, low: 0, high: 0.1, when: {max_grad_norm: 1}}\n"
     "  max_grad_norm: {value: weight_decay}", "parameters.weight_decay: parameters depend on each other in a circle:"
     " weight_decay needs max_grad_norm needs weight_decay. Break it at one of them."),
    (DECAY, "weight_decay: {value: 0.01 * unfrozen_layers}", "parameters.weight_decay: weight_decay is computed from"
     ' unfrozen_layers, which does not exist where method is "full". Give weight_decay the same `when`.'),
    (DECAY, "weight_decay: {type: float, low: 0, high: 0.1, when: {method: full, unfrozen_layers: 1}}",
     "parameters.weight_decay: no trial can have this parameter: its conditions are never met together."),
    # samplers
    ("type: tpe", "type: grid", "parameters.learning_rate: sampler grid cannot have parameters that only some trials have. Use tpe"
     " or random."),
]  # fmt: skip

SWEEP_CASES = [
    ("name: tickets", "name: 7", "1: name: 7 is not text. Put it in quotes."),
    ("name: tickets", "name: a b", '1: name: "a b" is not a name: it must begin with a letter or digit and hold only letters,'
     " digits, dots, dashes and underscores, at most 80."),
    ("name: tickets\n", "", " name: this key is missing. Add it, as in `name: my-sweep`."),
    ("task: classification", "task: clasification", '4: task: task "clasification" is unknown; did you mean "classification"?'
     " Known: causal-lm, classification, multi-label-classification, regression."),
    ("task: classification", "task: classification\nbudgets: 3", '5: budgets: key "budgets" is unknown; did you mean "budget"?'),
    ("validation: v.jsonl", "validation: v.jsonl, max_length: 4", "5: data.max_length: max_length is 4 but must be at least 8."),
    # fixed settings
    ("seed: 1", "output_dir: x", "9: training.output_dir: output_dir is finesweep's to set: artifacts lie below"
     " `artifacts.folder`."),
    ("seed: 1", "gradient_accumulation_steps: 2", "9: training.gradient_accumulation_steps: gradient_accumulation_steps is"
     " finesweep's to set: it follows from `batch_size` (examples per optimizer step) and `device_batch_size`"),
    ("bf16: true", "bf16: yes", '7: training.bf16: "yes" is not true or false, which bf16 must be.'),
    ("bf16: true", "adam_beta1: [1]", "7: training.adam_beta1: a list is not a number, which adam_beta1 must be."),
    ("bf16: true", "optim: adamw_troch", '7: training.optim: optim "adamw_troch" is unknown; did you mean "adamw_torch"?'),
    ("seed: 1", "weight_decay: 0.1", "9: training.weight_decay: weight_decay is fixed here (0.1) and searched by the study."
     " Remove it in one of the two."),
    ("training:\n  bf16: true\n  eval_every: 10\n  seed: 1", "training: fast", '6: training: "fast" is not a mapping. Write it as'
     " `training: {seed: 1}`."),
    ("seed: 1", "device_batch_size: 6", "9: training.device_batch_size: device_batch_size (6) must divide every larger batch_size,"
     " but not 8, 16, 32. Use a divisor of them, or batch sizes that are multiples of it."),
    ("eval_every: 10", "eval_every: 200", "8: training.eval_every: eval_every is 200, but with `compare_at: progress` it counts"
     " percent. Give at most 100."),
    # start_with
    (START, "{epoch: 3}", '11: start_with.0.epoch: parameter "epoch" is unknown; did you mean "epochs"?'),
    (START, "{seed: 3}", '11: start_with.0.seed: parameter "seed" is unknown.'),
    (START, "{}", "11: start_with.0: this configuration is empty. Name a parameter and its value."),
    (START, "{batch_size: 12}", "11: start_with.0.batch_size: 12 is outside batch_size's range. Its choices: 8, 16, 32."),
    (START, "{epochs: 2.5}", "11: start_with.0.epochs: 2.5 is outside epochs's range. It is a whole number from 2 to 5."),
    (START, "{method: full, learning_rate: 1}", "11: start_with.0.learning_rate: 1 is outside learning_rate's range. It lies from"
     " 5e-06 to 0.0001."),
    (START, "{learning_rate: 1}", "11: start_with.0.learning_rate: 1 lies in no branch of learning_rate. Name method too, and mend"
     " it."),
    (START, "{method: full, unfrozen_layers: 1}", "11: start_with.0.unfrozen_layers: unfrozen_layers does not exist where method is"
     ' "full". Remove it from this configuration.'),
    (START, "3", "11: start_with.0: 3 is not a mapping."),
    # budget and resources
    ("trials: 60", "trials: 0", "12: budget.trials: trials is 0 but must be at least 1."),
    ("trials: 60, ", "", "12: budget.trials: this key is missing. Add it, as in `trials: 20`."),
    ("hours: 10", "hours: 0", "12: budget.hours: hours is 0 but must be above 0."),
    ("hours: 10", "gpu_hours: 10", '12: budget.gpu_hours: key "gpu_hours" is unknown; did you mean "hours"?'
     " Known: at_end, hours, money, retries, retry_on, stall_minutes, stop_after_failures, tokens, trials."),
    ("gpus_per_trial: 1", "gpus_per_trial: 2", "13: resources.gpus_per_trial: gpus_per_trial is 2.0: trials that span devices are"
     " not built yet. Use 1 or a share of one."),
    ("gpus_per_trial: 1", "gpus_per_trial: 0.3", "13: resources.gpus_per_trial: gpus_per_trial is 0.3: a share must divide a device"
     " evenly, such as 1, 0.5, 0.33 or 0.25. 3 trials of 0.3 would leave part of it idle; write 0.3333."),
    ("gpus_per_trial: 1", "devices: gpu", '13: resources.devices: "gpu" is not "auto", "cpu" or a list.'),
    ("gpus_per_trial: 1", "devices: [a]", '13: resources.devices.0: "a" is not a whole number.'),
    ("gpus_per_trial: 1", "devices: []", "13: resources.devices: the list of devices is empty. Use auto, cpu, or numbers of GPUs."),
    ("gpus_per_trial: 1", "devices: [0], address: auto", "13: resources.devices: devices are numbers of this box, but the trials"
     " run on the cluster at `address`. Use auto or cpu."),
    ("gpus_per_trial: 1", "devices: [-1]", "13: resources.devices.0: -1 is no device; GPUs count from 0."),
    ("gpus_per_trial: 1", "devices: [1, 1]", "13: resources.devices.1: device 1 is named twice. Remove one."),
    # artifacts
    ("resources:", "artifacts: {keep: bset}\nresources:", '13: artifacts.keep: "bset" is no policy: it must be none, best, all, or'
     " a number of trials as in `top 3`."),
    ("resources:", "artifacts: {keep: top 0}\nresources:", '13: artifacts.keep: "top 0" is no policy: it must be none, best,'),
    ("resources:", "artifacts: {keep: 3}\nresources:", "13: artifacts.keep: 3 is not text."),
    ("resources:", "artifacts: {quota_gib: 0}\nresources:", "13: artifacts.quota_gib: quota_gib is 0 but must be above 0."),
    ("resources:", "try_defaults: 3\nresources:", "13: try_defaults: 3 is not true or false."),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), STUDY_CASES)
def test_a_fault_of_the_study(files: Files, old: str, new: str, expected: str) -> None:
    line = files.study_path.read_text().partition(old)[0].count("\n") + 1
    files.edit("study", old, new)
    faults = [fault for fault in files.faults() if fault.startswith("studies/")]
    assert faults, files.faults()
    assert expected in faults[0]
    assert int(faults[0].split(":")[1]) - line in range(-1, 8)  # near the edit; exact lines are tested elsewhere
    assert faults[0].split(": ")[1].startswith("study.")


@pytest.mark.parametrize(("old", "new", "expected"), SWEEP_CASES)
def test_a_fault_of_the_sweep(files: Files, old: str, new: str, expected: str) -> None:
    files.edit("sweep", old, new)
    faults = files.faults()
    assert faults[0].removeprefix("sweeps/sweep.yaml:").startswith(expected)
    assert faults[0].startswith("sweeps/sweep.yaml:")


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new, _ in (*STUDY_CASES, *SWEEP_CASES)])
def test_messages_speak_of_files_not_of_libraries(files: Files, old: str, new: str) -> None:
    which = "study" if old in files.study_path.read_text() else "sweep"
    files.edit(which, old, new)
    for fault in files.faults():
        for word in ("pydantic", "Input should", "http", "validation error", "Traceback", "literal_", "NoneType"):
            assert word not in fault


@pytest.mark.parametrize(
    ("share", "is_right"),
    [("1", True), ("0.5", True), ("0.33", True), ("0.333", True), ("0.25", True), ("0.1", True), ("0.7", False),
     ("0.9", False), ("0.4", False), ("0", False), ("-1", False)],
)  # fmt: skip
def test_shares_of_a_device(files: Files, share: str, is_right: bool) -> None:
    assert (files.faults(f"resources.gpus_per_trial={share}") == []) is is_right


def test_the_best_of_several_objectives_cannot_be_counted(files: Files) -> None:
    files.edit("sweep", "resources:", "artifacts: {keep: top 3}\nresources:")
    assert files.faults() == []
    files.edit("study", OBJECTIVE, f"objective: [{F1}, {SIZE}]")
    assert files.faults() == [
        'sweeps/sweep.yaml:13: artifacts.keep: "top 3" counts the best trials, but of 2 objectives none says which trial of the'
        " front comes first. Use best, which keeps the front, or all or none."
    ]
    files.edit("sweep", "keep: top 3", "keep: best")
    assert files.faults() == []


def test_eval_every_may_not_be_finer_than_a_batch(files: Files) -> None:
    files.edit("study", "  first_rung: 20\n  compare_at: progress", "  compare_at: examples")
    assert files.faults() == [
        "sweeps/sweep.yaml:8: training.eval_every: eval_every (10 examples) must be at least the largest batch_size (32):"
        " nothing can be reported within a batch. Raise it to 32 or more."
    ]
    assert files.faults("training.eval_every=32") == []


@pytest.mark.parametrize(
    ("parameter", "device_batch_size", "is_right"),
    [
        ("{type: int, low: 8, high: 32, step: 8}", 8, True),
        ("{type: int, low: 8, high: 32, step: 8}", 16, False),
        ("{type: int, low: 8, high: 9}", 64, True),
        ("{type: int, low: 1, high: 100000}", 1000, False),
        ("{by: method, full: {value: 12}, feature-extraction: {type: categorical, choices: [8, 16]}}", 8, False),
        ("{by: method, full: {value: 24}, feature-extraction: {type: categorical, choices: [8, 16]}}", 8, True),
        ("{value: 4 * epochs}", 5, True),  # only the trial knows
    ],
)
def test_device_batch_size_must_divide_what_can_be_drawn(
    files: Files, parameter: str, device_batch_size: int, is_right: bool
) -> None:
    files.edit("sweep", ", batch_size: 16", "")
    files.edit("study", "{type: categorical, choices: [8, 16, 32]}", parameter)
    assert (files.faults(f"training.device_batch_size={device_batch_size}") == []) is is_right


def test_a_fixed_batch_size_is_held_to_the_device_as_well(files: Files) -> None:
    files.edit("study", f"  {BATCH}\n", "")
    files.edit("sweep", ", batch_size: 16", "")
    assert files.faults("training.batch_size=12", "training.device_batch_size=4") == []
    assert len(files.faults("training.batch_size=12", "training.device_batch_size=5")) == 1
    assert (
        len(files.faults("training.batch_size=0", "training.device_batch_size=5")) == 1
    )  # not told of the default too


def test_a_fixed_method_takes_the_place_of_the_parameter(files: Files) -> None:
    files.edit("study", f"  {METHOD}\n", "")
    files.edit("sweep", "method: full, ", "")
    assert files.faults() == []
    assert files.notes() == [
        "studies/study.yaml:14: study.parameters.unfrozen_layers: no trial of this sweep has this parameter: a fixed setting"
        " keeps it out."
    ]
    files.edit("study", FULL, "ful: {type: float, low: 5e-6, high: 1e-4}")
    assert 'branch "ful" is no method; did you mean "full"?' in files.faults()[0]


def test_a_branch_that_start_with_cannot_enter(files: Files) -> None:
    files.edit("study", f"    {FULL}\n", "")
    assert files.faults() == [
        'sweeps/sweep.yaml:11: start_with.0.learning_rate: learning_rate does not exist where method is "full". Remove it.'
    ]


def test_a_derived_value_cannot_be_started_with(files: Files) -> None:
    files.edit("study", DECAY, "weight_decay: {value: 0.01 * epochs}")
    (fault,) = files.faults("start_with.0.weight_decay=0.02")
    assert fault.endswith("weight_decay is derived and cannot be given. Remove it from this configuration.")


def test_a_broken_parameter_does_not_hide_the_others(files: Files) -> None:
    files.edit("study", METHOD, "method: {type: categorical, choices: full}")
    files.edit("study", "low: 2, high: 5", "low: 5, high: 2")
    keys = [fault.key for fault in files.check().faults]
    assert keys == ["study.parameters.method.choices", "study.parameters.epochs.low"]


def test_grid_needs_values_without_conditions(files: Files) -> None:
    start = files.study_path.read_text().index("parameters:")
    files.study_path.write_text(
        files.study_path.read_text()[:start].replace("tpe", "grid")
        + "parameters:\n  epochs: {type: int, low: 1, high: 4}\n  weight_decay: {type: float, low: 0, high: 0.1}\n"
    )
    files.edit("sweep", f"start_with:\n  - {START}\n", "")
    (fault,) = files.faults()
    assert "study.parameters.weight_decay: sampler grid needs a `step` or choices" in fault
    files.edit("study", "high: 0.1}", "high: 0.1, step: 0.1}")
    assert files.notes() == ["sweeps/sweep.yaml:10: budget.trials: the space has only 8 configurations: the sweep ends after"
                             " them, before 60."]  # fmt: skip
    assert "the grid has 8 configurations; 5 trials leave the others out" in files.notes("budget.trials=5")[0]
    files.edit("study", "high: 4", "high: 60000")
    (fault,) = files.faults()
    assert "the grid has 120000 configurations; at most 100000 are possible" in fault


def test_cmaes_needs_a_number_that_every_trial_has(files: Files) -> None:
    files.edit("study", f"  {EPOCHS}\n", "")
    files.edit("study", f"  {DECAY}\n", "")
    (fault,) = files.faults("study.sampler.type=cmaes")
    assert fault.startswith("--set: study.sampler.type: sampler cmaes moves through numbers that every trial has")


# --- notes -------------------------------------------------------------------------------------------------------


def test_a_plain_sweep_has_no_notes(files: Files) -> None:
    assert files.notes() == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["study.sampler.type=gp"], "sampler gp learns nothing from pruned trials; tpe and cmaes do."),
        (
            ["study.sampler.type=gp"],
            "sampler gp draws at random what only some trials have: learning_rate, unfrozen_layers.",
        ),
        (["study.sampler.type=qmc"], "sampler qmc draws at random what only some trials have"),
        (["study.sampler.type=cmaes"], "sampler cmaes draws choices at random: method, batch_size. tpe searches them."),
        (["study.sampler.startup_trials=60"], "the first 60 trials (`startup_trials`) are drawn at random"),
        (
            ["study.objective.direction=minimize"],
            "macro_f1 is better the other way: did you mean `direction: maximize`?",
        ),
        (
            ["study.pruner.compare_at=examples", "training.eval_every=null"],
            "favours short schedules: they have annealed earlier.",
        ),
        (["data.prompt=p"], "this has no effect for task classification."),
        (["training.adam_beta1=0.8", "data.label=l"], None),
    ],
)
def test_what_is_worth_a_word(files: Files, overrides: list[str], expected: str | None) -> None:
    notes = files.notes(*overrides)
    assert any(expected in note for note in notes) if expected else notes == []


def test_rows_used_twice_are_worth_a_word(files: Files) -> None:
    files.edit("sweep", "validation: v.jsonl", "validation: t.jsonl, test: t.jsonl")
    assert [note.split(": ")[1] for note in files.notes()] == ["data.validation", "data.test"]


def test_two_shares_of_one_size_are_not_the_same_rows(files: Files) -> None:
    files.edit("sweep", "validation: v.jsonl", "validation: 0.1, test: 0.1")
    assert files.notes() == []


def test_unfrozen_layers_without_effect(files: Files) -> None:
    files.edit("study", f"  {METHOD}\n", "")
    files.edit("study", "  unfrozen_layers: {type: int, low: 0, high: 2, when: {method: feature-extraction}}\n", "")
    files.edit("sweep", "method: full, ", "")
    assert "this has no effect: the method is full" in files.notes("training.unfrozen_layers=2")[0]


def test_a_patient_pruner_may_stand_alone(files: Files) -> None:
    files.edit("study", PRUNER, "type: patient\n  patience: 2\n  compare_at: progress")
    assert files.faults() == []
    files.edit("study", "patience: 2", "then: {type: median}")
    assert files.faults() == []


def test_more_parameters_than_settings_are_refused_at_once(files: Files) -> None:
    many = "".join(f"  p{number}: {{value: p{number + 1}}}\n" for number in range(300))
    files.edit("study", "parameters:\n", "parameters:\n" + many)
    (fault,) = [fault for fault in files.faults() if fault.startswith("studies/")]
    assert "study.parameters: 306 parameters are more than there are settings to search. Keep to 200." in fault


def test_conditions_on_numbers_name_some_or_all_of_their_values(files: Files) -> None:
    files.edit(
        "study",
        DECAY,
        "weight_decay: {value: 0.1 * max_grad_norm}\n  max_grad_norm: {type: int, low: 1, high: 2, when: {epochs: [2, 3]}}",
    )
    assert "weight_decay is computed from max_grad_norm, which does not exist in some trials." in files.faults()[0]
    files.edit("study", "epochs: [2, 3]", "epochs: [2, 3, 4, 5]")
    assert files.faults() == []


def test_a_space_with_too_many_cases_is_not_searched_for_absent_parameters(files: Files) -> None:
    names = ["adam_beta1", "adam_beta2", "max_grad_norm", "warmup_steps", "label_smoothing_factor"]
    controls = "".join(
        f"  {name}: {{type: categorical, choices: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}}\n" for name in names
    )
    when = ", ".join(f"{name}: 0.1" for name in names)
    files.edit(
        "study",
        f"  {DECAY}\n",
        controls.replace("0.", "") + f"  weight_decay: {{value: 1, when: {{{when.replace('0.', '')}}}}}\n",
    )
    assert files.faults() == []


def test_a_range_that_no_number_can_span(files: Files) -> None:
    files.edit("study", "low: 0, high: 0.1", "low: 0, high: 1e308")
    assert files.faults() == []
    files.edit("study", "weight_decay: {type: float, low: 0", "adam_beta1: {type: float, low: -1e308")
    assert "the range from -1e+308 to 1e+308 is too wide to be searched" in files.faults()[0]


def test_steps_are_named_where_a_value_lies_between_them(files: Files) -> None:
    files.edit("study", "low: 0, high: 0.1", "low: 0, high: 0.1, step: 0.05")
    (fault,) = files.faults("start_with.0.weight_decay=0.04")
    assert fault.endswith("It lies from 0.0 to 0.1 in steps of 0.05.")


def test_names_too_long_for_a_disk(files: Files) -> None:
    (fault,) = files.faults("data.train=" + "x" * 5000)
    assert "cannot be looked for: File name too long." in fault


def test_branches_are_known_by_the_values_of_the_parameter(files: Files) -> None:
    files.edit(
        "study",
        "weight_decay: {type: float, low: 0, high: 0.1}",
        "weight_decay: {by: fp16, true: {value: 0.1}, maybe: {value: 0}}\n  fp16: {type: categorical, choices: [true, false]}",
    )
    assert files.faults() == [
        'studies/study.yaml:16: study.parameters.weight_decay.maybe: branch "maybe" is no choice of fp16. Known: False, True.'
    ]


def test_a_parameter_without_branches(files: Files) -> None:
    files.edit("study", DECAY, "weight_decay: {by: method}")
    assert "study.parameters.weight_decay: " in files.faults()[0]


def test_objectives_of_a_causal_language_model(files: Files) -> None:
    files.edit("sweep", "task: classification", "task: causal-lm")
    assert (
        'metric "macro_f1" is not measured for task causal-lm. Known: loss, perplexity, token_accuracy.'
        in files.faults()[0]
    )
    assert files.notes("study.objective={metric: perplexity, direction: minimize}") == []
