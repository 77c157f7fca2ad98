/** `slos-serve profile`: measure an engine's step times, fit the cost model, show how good it is. */
import { type Command, Option } from "commander"
import pc from "picocolors"
import type { Speculation } from "../engine/drafter.ts"
import { libraryFor } from "../engine/llama/built.ts"
import { openLlama } from "../engine/llama/engine.ts"
import { cacheFolder } from "../models/cache.ts"
import { DEFAULT_MODEL, type OnProgress, resolveModel } from "../models/resolve.ts"
import { describeProfile, profileSvg } from "../profile/chart.ts"
import { loadOrProfile } from "../profile/profile.ts"
import { threadWaits } from "../profile/waits.ts"
import { progressLine } from "./model.ts"
import { drafter, wholeNumber } from "./numbers.ts"
import { checkWritable, writeResult } from "./output.ts"
import { captureSizes, profileRunningVllm, type VllmProfileFlags } from "./profile-vllm.ts"
import { defaultThreads } from "./threads.ts"

interface ProfileOptions {
  model: string
  threads?: number
  maxSequences: number
  context: number
  maxBatchTokens: number
  kvUnified?: boolean
  flashAttention?: boolean
  kvType?: "f16" | "f32" | "q8_0"
  gpuLayers?: number
  library: string
  speculate: string
  maxSpeculation: number
  quick?: boolean
  cached?: boolean
  json?: boolean
  out?: string
  svg?: string
}

const EXAMPLES = `
Examples:
  # how fast this machine runs the default model, and how well that is predicted
  slos-serve profile

  # for the simulator, with a chart of the fit
  slos-serve profile --model tiny-bench --out profile.json --svg fit.svg

  # with drafts of a small model, as serve --speculate would use them
  slos-serve profile --model model.gguf --speculate draft=draft.gguf

  # a running vLLM, over its API; it should have nothing else to do meanwhile
  slos-serve profile --vllm http://localhost:8000 --max-concurrency 128`

export function register(program: Command): void {
  program
    .command("profile")
    .description("measure step times and fit the cost model")
    .option(
      "-m, --model <model>",
      "a GGUF file, hf:owner/repo/file.gguf, smollm2-135m or tiny",
      DEFAULT_MODEL,
    )
    .option("--threads <n>", "engine threads (default: one less than the cores)", wholeNumber(1, 512))
    .option("--max-sequences <n>", "most requests with KV in place", wholeNumber(1, 256), 32)
    .option("--context <tokens>", "most tokens of one request", wholeNumber(32, 1 << 20), 2048)
    .option("--max-batch-tokens <n>", "most tokens of one step", wholeNumber(1, 1 << 16), 512)
    .option("--kv-unified", "one KV pool for all requests (default on a GPU)")
    .option("--no-kv-unified", "a KV stream for each request (default on a CPU)")
    .option("--flash-attention", "attention in tiles (default on a GPU)")
    .option("--no-flash-attention", "plain attention (default on a CPU)")
    .addOption(new Option("--kv-type <type>", "numbers in the KV cache").choices(["f16", "f32", "q8_0"]))
    .option("--gpu-layers <n>", "layers on the GPU", wholeNumber(0, 1 << 16))
    .option("--library <which>", "auto, cpu, cuda, vulkan or a folder", "auto")
    .option("--speculate <drafter>", "measure speculation too: lookup, draft=<model> or off", drafter, "off")
    .option("--max-speculation <n>", "most tokens verified per request and step", wholeNumber(1, 64), 8)
    .option("--quick", "a few seconds, as at a server's first start")
    .option("--cached", "use a profile that is already cached")
    .option("--json", "print the profile as JSON")
    .option("--out <file>", "write the profile as JSON")
    .option("--svg <file>", "write the chart as SVG")
    .option("--vllm <url>", "instead: a running vLLM, measured over its API")
    .option("--vllm-model <name>", "with --vllm: which of its models (default: the first)")
    .option("--api-key <key>", "with --vllm: its key (default: OPENAI_API_KEY)")
    .option("--max-concurrency <n>", "with --vllm: most requests at a time", wholeNumber(1, 1024), 64)
    .option(
      "--max-prompt <tokens>",
      "with --vllm: longest prompt; it must fit one step",
      wholeNumber(8, 1 << 17),
      1024,
    )
    .option(
      "--capture-sizes <sizes>",
      "with --vllm: default, none or its CUDA graph sizes, such as 1,2,4,8",
      captureSizes,
    )
    .option("--cpu", "with --vllm: it runs on a processor")
    .addHelpText("after", EXAMPLES)
    .action((options: ProfileOptions & Partial<VllmProfileFlags>) =>
      options.vllm === undefined ? profile(options) : profileRunningVllm(options as VllmProfileFlags),
    )
}

async function profile(options: ProfileOptions): Promise<void> {
  checkWritable(options.out)
  checkWritable(options.svg)
  const showProgress = progressLine()
  const found = await resolveModel(options.model, { onProgress: showProgress })
  const speculate = await speculation(options.speculate, showProgress)
  const threads = options.threads ?? defaultThreads()
  const library = libraryFor(options.library, cacheFolder())
  const engine = await openLlama({
    modelPath: found.path,
    name: found.name,
    threads,
    maxSequences: options.maxSequences,
    contextTokens: options.context,
    maxBatchTokens: options.maxBatchTokens,
    library,
    speculate,
    maxSpeculation: options.maxSpeculation,
    ...(options.kvUnified === undefined ? {} : { kvUnified: options.kvUnified }),
    ...(options.flashAttention === undefined ? {} : { flashAttention: options.flashAttention }),
    ...(options.kvType === undefined ? {} : { kvType: options.kvType }),
    ...(options.gpuLayers === undefined ? {} : { gpuLayers: options.gpuLayers }),
  })
  const warnings: string[] = []
  try {
    const result = await loadOrProfile(engine, {
      cacheDir: cacheFolder(),
      threads,
      quick: options.quick ?? false,
      refresh: !options.cached,
      ...(speculate !== "off" && { maxDraft: options.maxSpeculation - 1 }),
      key: {
        ...(library !== "auto" && { library }),
        ...(speculate !== "off" && { speculate: options.speculate }),
      },
      waits: threadWaits,
      onProgress: (message) => showProgress?.({ stage: "verify", message }),
      onNote: (note, level) => {
        if (level === "warning") warnings.push(note)
      },
    })
    if (showProgress) process.stderr.write("\r\u001b[2K")
    for (const warning of warnings) process.stderr.write(`${pc.yellow("warning:")} ${warning}\n`)
    if (found.banner !== undefined) process.stderr.write(`${found.banner}\n`)
    if (options.out !== undefined) writeResult(options.out, `${JSON.stringify(result, null, 1)}\n`)
    if (options.svg !== undefined) writeResult(options.svg, profileSvg(result))
    process.stdout.write(`${options.json ? JSON.stringify(result) : describeProfile(result)}\n`)
    if (result.faults.length > 0) process.exitCode = 1
  } finally {
    await engine.close()
  }
}

async function speculation(drafts: string, onProgress: OnProgress | undefined): Promise<Speculation> {
  if (drafts === "off" || drafts === "lookup") return drafts
  return { draftModel: (await resolveModel(drafts.slice("draft=".length), { onProgress })).path }
}
