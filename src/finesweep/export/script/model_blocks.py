"""Blocks of a training script, as text: a head's input, and which weights move. As trials are trained.

A block is plain Python; its names in capitals are constants at the head of the script.
"""

from __future__ import annotations

POOL = '''
def pool(body, args, kwargs, output):
    """Give the head one vector for each row, the POOLING of its tokens' states, wherever it looks for it.

    This hook is not saved with the model: whoever loads that has to add it again.
    """
    states = output["last_hidden_state"]
    VECTOR
    output["last_hidden_state"] = vector.unsqueeze(1).expand(-1, states.shape[1], -1)
    if getattr(output, "pooler_output", None) is not None:
        output["pooler_output"] = vector
    return output
'''

MEAN = """weights = kwargs["attention_mask"].to(torch.promote_types(states.dtype, torch.float32)).unsqueeze(-1)
    vector = ((states.to(weights.dtype) * weights).sum(1) / weights.sum(1)).to(states.dtype)"""
CLS = "vector = states[:, 0]"

FREEZE_ALL_BUT = """
for name, parameter in model.named_parameters():
    parameter.requires_grad = any(f"{name}.".startswith(f"{module}.") for module in UNFROZEN)
frozen = [model.get_submodule(name) for name in FROZEN]
"""

FREEZE_POOLER = """
for name, parameter in model.named_parameters():
    if f".{model.base_model_prefix}.pooler." in f".{name}":  # the body's own, which nobody reads
        parameter.requires_grad = False
"""

LORA_HEAD = """
fresh = {key if isinstance(key, str) else key[0] for key in (*loading["missing_keys"], *loading["mismatched_keys"])}
whole = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name in fresh}  # in no file
whole |= {
    name
    for name, module in model.named_children()
    if module is not model.base_model and any(True for _ in module.parameters())
}
whole = {name for name in whole if not any(name.startswith(f"{other}.") for other in whole)}
"""

LORA_NO_HEAD = """
fresh = {key if isinstance(key, str) else key[0] for key in (*loading["missing_keys"], *loading["mismatched_keys"])}
whole = {name.rpartition(".")[0] for name, _ in model.named_parameters() if name in fresh}  # in no file
"""

LORA = """
idle = [name for name, _ in model.named_modules() if POOLER in f".{name}."]
adaptable = (torch.nn.Linear, Conv1D, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d)
kept = tuple(f"{name}." for name in (*whole, *idle))
targets = [
    name
    for name, module in model.named_modules()
    if isinstance(module, adaptable)
    and not f"{name}.".startswith(kept)
    and any(f".{name}".endswith(f".{wanted}") for wanted in LORA_TARGET_MODULES)
]
set_seed(SEED)
model = peft.get_peft_model(
    model,
    peft.LoraConfig(
        task_type=TASK_TYPE,
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=LORA_DROPOUT,
        target_modules=TARGETS,
        exclude_modules=idle or None,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        modules_to_save=sorted(name for name in whole if name not in ("classifier", "score")) or None,
    ),
)
"""
