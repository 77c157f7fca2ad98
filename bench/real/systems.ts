/** The systems compared: our server with each policy, llama-server stock and tuned. Same model, threads, slots
 * and context for all; rivals are given every advantage their flags offer. */
import type { TargetKind } from "../../src/load/client.ts"

export interface Setup {
  /** Path of the GGUF file. */
  model: string
  threads: number
  /** Most requests in the engine at once. */
  slots: number
  /** Tokens of one request (prompt + output). */
  contextTokens: number
  llamaServer: string
  /** SLO classes of our server, as a YAML file. */
  config: string | undefined
}

export interface System {
  name: string
  kind: TargetKind
  /** Request rate at which the search for its knee begins. */
  guessPerSec: number
  command(setup: Setup, port: number): string[]
}

export const POLICIES = [
  "slos-serve",
  "edf-drop",
  "edf",
  "sarathi",
  "vllm",
  "vllm-prefill-first",
  "slos-serve-paper",
] as const

function ours(policy: string, guessPerSec: number, name = policy, extra: readonly string[] = []): System {
  return {
    name,
    kind: "slos-serve",
    guessPerSec,
    command: (setup, port) => [
      process.execPath,
      "src/cli/main.ts",
      "serve",
      ...["--model", setup.model, "--port", String(port), "--policy", policy],
      ...["--threads", String(setup.threads), "--max-sequences", String(setup.slots)],
      ...["--context", String(setup.contextTokens), "--log-level", "warn"],
      ...(setup.config === undefined ? [] : ["--config", setup.config]),
      ...extra,
    ],
  }
}

interface LlamaOptions {
  slots?: (setup: Setup) => number
  /** Also keep prompts in RAM that slots have given up: pays where prompts begin alike, costs time elsewhere. */
  keepPrompts?: boolean
}

function llama(
  name: string,
  extra: (setup: Setup) => string[],
  { slots = (setup) => setup.slots, keepPrompts = false }: LlamaOptions = {},
): System {
  return {
    name,
    kind: "llama-server",
    guessPerSec: 1.5,
    command: (setup, port) => [
      setup.llamaServer,
      ...["-m", setup.model, "--host", "127.0.0.1", "--port", String(port)],
      ...["-t", String(setup.threads), "-tb", String(setup.threads), "--threads-http", "2"],
      ...["--parallel", String(slots(setup)), "-c", String(setup.contextTokens * slots(setup))],
      // Saving idle slots to RAM and the slots page cost time that we do not want to beat.
      ...["--no-ui", "--no-slots", ...(keepPrompts ? [] : ["--cache-ram", "0"])],
      ...extra(setup),
    ],
  }
}

const fourSlots = () => 4
const smallBatches = ["-b", "128", "-ub", "128", "-fa", "off"]

/** For prompts that begin alike: llama-server with all that it has for them. A slot is chosen by the beginning that it
 * holds, further chunks are moved into place, and what a slot gives up stays in RAM, from where any slot takes it. */
const SHARING = ["--cache-prompt", "--cache-reuse", "64", "--slot-prompt-similarity", "0.1"]

const LLAMA_SHARING: readonly System[] = [
  // Four slots hold the beginning soon; requests wait for a slot.
  llama("llama-server-cache", () => [...SHARING, "--kv-unified"], { slots: fourSlots, keepPrompts: true }),
  llama("llama-server-cache-slots", () => SHARING, { keepPrompts: true }),
  llama("llama-server-cache-kvu", () => [...SHARING, "--kv-unified"], { keepPrompts: true }),
  // With one KV pool the server empties idle slots at every new task unless it is told not to.
  llama("llama-server-cache-kvu-keep", () => [...SHARING, "--kv-unified", "--no-cache-idle-slots"], {
    keepPrompts: true,
  }),
  // On a CPU plain attention is what helps most, as for us.
  llama("llama-server-cache-slots-plain", () => [...SHARING, "-fa", "off"], { keepPrompts: true }),
  llama("llama-server-cache-slots-b128", () => [...SHARING, ...smallBatches], { keepPrompts: true }),
  llama("llama-server-cache-kvu-b128", () => [...SHARING, "--kv-unified", ...smallBatches], {
    keepPrompts: true,
  }),
  llama("llama-server-cache-b128", () => [...SHARING, "--kv-unified", ...smallBatches], {
    slots: fourSlots,
    keepPrompts: true,
  }),
]

export const SYSTEMS: readonly System[] = [
  ours("slos-serve", 5),
  ours("edf-drop", 5),
  ours("edf", 3.4),
  ours("sarathi", 2),
  ours("vllm", 2),
  // The fixed token budget is vLLM's knob: a small one keeps TPOT, as -b 128 does for llama-server.
  ours("vllm", 2, "vllm-budget64", ["--token-budget", "64"]),
  ours("vllm", 2, "vllm-budget128", ["--token-budget", "128"]),
  ours("vllm", 2, "vllm-budget256", ["--token-budget", "256"]),
  ours("vllm-prefill-first", 2),
  ours("slos-serve-paper", 4),
  // Its own batch sizes (2048/512) and its own four slots, which share one KV pool.
  llama("llama-server", () => ["--kv-unified"], { slots: fourSlots }),
  llama("llama-server-slots", () => []),
  // Its knob is the batch size; plain attention is the faster one on a CPU (our engine's default there).
  ...[64, 128, 256, 512].flatMap((tokens) => {
    const batch = ["-b", String(tokens), "-ub", String(tokens)]
    return [
      llama(`llama-server-b${tokens}`, () => batch),
      llama(tokens === 128 ? "llama-server-tuned" : `llama-server-b${tokens}-plain`, () => [
        ...batch,
        ...["-fa", "off"],
      ]),
    ]
  }),
  ...LLAMA_SHARING,
]

/** What is compared unless named: without what only prompts that begin alike are for. */
export const STANDARD = SYSTEMS.filter((system) => !LLAMA_SHARING.includes(system))
