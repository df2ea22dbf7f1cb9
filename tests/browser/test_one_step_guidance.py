"""Guidance behind One-Step Preset, in a real page: the node says so after the run, and no longer once cfg is 1."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

# Behind the preset stands the host's own sampler.
ADD = """async () => {
    const { app, LiteGraph } = window;
    const { api } = await import("/scripts/api.js");
    window.ended = 0;
    const count = () => (window.ended += 1);
    for (const event of ["execution_success", "execution_error"]) api.addEventListener(event, count);
    app.graph.clear();
    const add = (type, x, values = {}) => {
        const node = LiteGraph.createNode(type);
        node.pos = [x, 100];
        app.graph.add(node);
        for (const [name, value] of Object.entries(values)) {
            node.widgets.find((widget) => widget.name === name).value = value;
        }
        return node;
    };
    const place = (node, input) => node.inputs.findIndex(({ name }) => name === input);
    const join = (from, output, to, input) => from.connect(output, to, place(to, input));
    const checkpoint = add("CheckpointLoaderSimple", 0, { ckpt_name: "attune_demo.safetensors" });
    const lora = add("LoraLoaderModelOnly", 300, { lora_name: "attune_demo_one_step.safetensors" });
    const prompt = add("CLIPTextEncode", 600, { text: "a cat" });
    const latent = add("EmptyLatentImage", 900, { width: 64, height: 64 });
    const preset = add("AttuneOneStepPreset", 100);
    preset.pos = [100, 400];
    const sampler = add("SamplerCustom", 1200, { cfg: 7 });
    const decode = add("VAEDecode", 1500);
    const preview = add("PreviewImage", 1800);
    join(checkpoint, 0, lora, "model");
    join(checkpoint, 1, prompt, "clip");
    for (const node of [preset, sampler]) join(lora, 0, node, "model");
    for (const name of ["positive", "negative"]) join(prompt, 0, sampler, name);
    join(preset, 1, sampler, "sigmas");
    join(preset, 2, sampler, "sampler");
    join(latent, 0, sampler, "latent_image");
    join(sampler, 0, decode, "samples");
    join(checkpoint, 2, decode, "vae");
    join(decode, 0, preview, "images");
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [0, 0];
    app.canvas.setDirty(true, true);
}"""
RUN = """async (cfg) => {
    const sampler = window.app.graph.nodes.find((node) => node.type === "SamplerCustom");
    sampler.widgets.find((widget) => widget.name === "cfg").value = cfg;
    await window.app.queuePrompt(0, 1);
}"""


def run(page: Page, cfg: float, *, ended: int) -> None:
    page.evaluate(RUN, cfg)
    page.wait_for_function("(count) => window.ended >= count", arg=ended, timeout=60_000)


def test_the_preset_says_what_cfg_its_sampler_has(renderer: str, page: Page):
    page.evaluate(ADD)
    words = page.locator(".attune-words")
    plain = "as attune_demo_one_step.safetensors was trained: 1 step at timestep 999, no guidance (cfg 1)."
    run(page, 7, ended=1)
    expect(words).to_contain_text(plain)
    expect(words).to_have_text(re.compile("^⚠ Set cfg to 1 in the sampler, not 7: "))
    # The preset itself does not run again for it: the host has kept it.
    run(page, 1, ended=2)
    expect(words).to_have_text(plain)
    run(page, 0, ended=3)
    expect(words).to_have_text(re.compile("^⚠ Set cfg to 1 in the sampler, not 0: "))
    expect(words).not_to_contain_text("not 7")
