/** `slos-serve profile --vllm URL`: step times of a running vLLM, from outside. */
import Table from "cli-table3"
import { InvalidArgumentError } from "commander"
import pc from "picocolors"
import { stepUs } from "../core/cost.ts"
import { UserError } from "../errors.ts"
import { type CapturedGraphs, CPU_GUESS, GPU_GUESS } from "../fit/guess.ts"
import type { SeenStep } from "../fit/seen-steps.ts"
import { rememberProfiled } from "../profile/engine-cost.ts"
import { type Served, VllmClient } from "../profile/vllm/client.ts"
import { profileVllm, type VllmProfile } from "../profile/vllm/profile-vllm.ts"
import { checkWritable, writeResult } from "./output.ts"

export interface VllmProfileFlags {
  vllm: string
  vllmModel?: string
  apiKey?: string
  maxConcurrency: number
  maxPrompt: number
  captureSizes?: readonly number[] | "default" | "none"
  cpu?: boolean
  quick?: boolean
  json?: boolean
  out?: string
}

/** vLLM's own, up to the largest that it captures by default. */
const DEFAULT_SIZES = [1, 2, 4, ...range(8, 256, 8), ...range(256, 513, 16)]

function range(from: number, to: number, by: number): number[] {
  return Array.from({ length: Math.ceil((to - from) / by) }, (_, i) => from + i * by)
}

/** "default", "none" or sizes with commas between. */
export function captureSizes(text: string): readonly number[] | "default" | "none" {
  if (text === "default" || text === "none") return text
  const sizes = text.split(",").map((part) => (part.trim() === "" ? Number.NaN : Number(part)))
  if (sizes.every((size) => Number.isInteger(size) && size > 0 && size <= 1 << 20))
    return [...new Set(sizes)].sort((a, b) => a - b)
  throw new InvalidArgumentError("It must be default, none, or sizes such as 1,2,4,8,16.")
}

export async function profileRunningVllm(flags: VllmProfileFlags): Promise<void> {
  checkWritable(flags.out)
  const url = addressOf(flags.vllm)
  const { vllmModel, apiKey = process.env.OPENAI_API_KEY } = flags
  const client = await VllmClient.connect({
    ...{ url, ...(vllmModel !== undefined && { model: vllmModel }), ...(apiKey !== undefined && { apiKey }) },
  })
  const interactive = process.stderr.isTTY
  try {
    const profile = await profileVllm(client, {
      ...{ maxConcurrency: flags.maxConcurrency, maxPrompt: flags.maxPrompt, quick: flags.quick ?? false },
      contextTokens: client.served.contextTokens,
      guess: flags.cpu ? CPU_GUESS : GPU_GUESS,
      graphs: graphsOf(flags),
      onProgress: (done, rounds) => {
        if (interactive)
          process.stderr.write(`\r\u001b[2Kmeasuring ${client.served.id}: ${done} of ${rounds}`)
      },
    })
    if (interactive) process.stderr.write("\r\u001b[2K")
    await finish(profile, client.served, flags)
  } finally {
    await client.close()
  }
}

function addressOf(text: string): string {
  const url = URL.parse(text.includes("://") ? text : `http://${text}`)
  if (url === null || !url.protocol.startsWith("http"))
    throw new UserError(`--vllm "${text}" is no address; give one such as http://localhost:8000`)
  return url.href.replace(/\/+(v1\/*)?$/, "")
}

function graphsOf({
  captureSizes: sizes = "default",
  cpu,
}: VllmProfileFlags): (CapturedGraphs | undefined)[] {
  if (sizes === "none" || (cpu && sizes === "default")) return [undefined]
  const graphs = { decodes: "full", mixed: "piecewise", decodeTokens: 1 } as const
  // Whether the engine has vLLM's own is not to be seen but by its steps.
  return sizes === "default" ? [undefined, { ...graphs, sizes: DEFAULT_SIZES }] : [{ ...graphs, sizes }]
}

async function finish(profile: VllmProfile, served: Served, flags: VllmProfileFlags): Promise<void> {
  const { model, steps, heldOut, faults } = profile
  const engine = { model: served.root, vllmVersion: served.version }
  const result = { engine, model, heldOut, faults, steps }
  if (flags.out !== undefined) writeResult(flags.out, `${JSON.stringify(result)}\n`)
  const cached =
    faults.length > 0
      ? null
      : await rememberProfiled(engine, model).catch((error: NodeJS.ErrnoException) => {
          process.stderr.write(
            `${pc.yellow("warning:")} the profile could not be cached (${error.code ?? error.message})\n`,
          )
          return null
        })
  process.stdout.write(
    flags.json ? `${JSON.stringify({ ...result, cached })}\n` : `${described(profile, served, cached)}\n`,
  )
  for (const fault of faults)
    process.stderr.write(`${pc.yellow("warning:")} this profile is poor and is not kept: ${fault}\n`)
  if (faults.length > 0) process.exitCode = 1
}

function described({ model, steps, heldOut }: VllmProfile, served: Served, cached: string | null): string {
  const table = new Table({
    head: ["steps with", "tokens", "seen", "took, median ms", "predicted ms"],
    style: { head: [], border: [] },
    colAligns: ["left", "right", "right", "right", "right"],
  })
  for (const [name, group] of groupsOf(steps)) {
    const middle = [...group].sort((a, b) => a.us - b.us)[group.length >> 1]!
    const ms = (us: number) => (us / 1000).toFixed(2)
    const tokens = group.map(({ shape }) => shape.tokens)
    const [least, most] = [Math.min(...tokens), Math.max(...tokens)]
    table.push([
      name,
      least === most ? least : `${least}–${most}`,
      group.length,
      ms(middle.us),
      ms(stepUs(model, middle.shape)),
    ])
  }
  const percent = (share: number) => `${(100 * share).toFixed(1)}%`
  const { p50, p90, p99, middle, count } = heldOut
  const graphs =
    model.graphs === undefined
      ? "no CUDA graphs"
      : `CUDA graphs of ${model.graphs.sizes.length} sizes up to ${model.graphs.sizes.at(-1)}`
  return [
    `${served.id} on vLLM ${served.version}: ${steps.length} steps`,
    table.toString(),
    ...model.pieces.map(
      (piece, i) =>
        `${i === 0 ? "µs: " : "  or "}${Object.entries(piece)
          .map(([feature, us]) => `${feature} ${Number(us.toPrecision(4))}`)
          .join(", ")}${model.pieces.length > 1 && i === 0 ? "   (the largest counts)" : ""}`,
    ),
    graphs,
    `on ${count} steps that the fit was not shown: half are off by less than ${percent(p50)}, nine of ten by ${percent(p90)}, 99 of 100 by ${percent(p99)}; actual/predicted ${middle.toFixed(2)} in the middle`,
    ...(cached === null
      ? []
      : [`kept in ${cached}: \`slos-serve planner\` begins with it for this model and version`]),
  ].join("\n")
}

function groupsOf(steps: readonly SeenStep[]): Map<string, SeenStep[]> {
  const sorted = [...steps].sort((a, b) => a.shape.tokens - b.shape.tokens)
  return Map.groupBy(sorted, ({ shape: { tokens, sequences } }) => {
    const prompt = tokens > sequences
    const size = 2 ** Math.ceil(Math.log2(prompt ? tokens : sequences))
    return prompt ? `a prompt, up to ${size} tokens` : `decodes, up to ${size}`
  })
}
