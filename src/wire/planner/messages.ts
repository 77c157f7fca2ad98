/** What an engine's plug-in and the planner process say to each other, over a Unix socket, in the frames of `../frames.ts`
 * (docs/vllm.md, The planner process). One schema for each message; a change of meaning is a new version, and an end that hears
 * another version refuses to go on.
 *
 * Each end begins with `hello`. The plug-in then says `engine`, once, and is answered `ready` or `refused`. From then on it says
 * `step` after each of its steps has been scheduled (and when something happened while nothing runs), and is answered with the
 * `plan` of its next step.
 *
 * **Times** are µs on the plug-in's own monotonic clock (`…Us`), or how long ago something was (`ageUs`, `agoUs`). **Sizes** are
 * tokens. **Ids** are whole numbers from 1 on that the plug-in gives to its requests, none twice in a connection.
 * **Columns** (`columns.ts`) are the bytes of little-endian float64, in a plan of int64; all columns of one object have one length and
 * one order. */
import { z } from "zod"
import { readMessage } from "../messages.ts"
import { type Column, columnBytes, counts, durations, indexes, wholeBytes, wholes } from "./columns.ts"

export const PLANNER_VERSION = 2
export const PLANNER_PROTOCOL = "slos-serve-planner"

const whole = z.number().int()
const count = whole.nonnegative()
const positive = whole.positive()
const us = z.number().refine(Number.isFinite, "is not a finite time")
const text = z.string()

const hello = z.object({ type: z.literal("hello"), protocol: text, version: whole })

const limits = z.object({
  /** Room for KV: vLLM's blocks without its null block, times `blockTokens`. */
  kvTokens: positive,
  /** Tokens of one KV block, which is also what one hash of `arrived.prefix` stands for. */
  blockTokens: positive,
  /** Most requests in one step (vLLM: max_num_seqs). */
  maxSequences: positive,
  /** Most tokens of one step (vLLM: max_num_batched_tokens). */
  maxBatchTokens: positive,
  /** Most different LoRAs in one step (vLLM: max_loras). Left out: any number. */
  maxAdapters: positive.optional(),
  /** Most tokens of one request, prompt and output (vLLM: max_model_len). */
  contextTokens: positive,
  /** Chunks of prompts shorter than this are not worth a step; only a prompt's remainder may be shorter. */
  minChunkTokens: positive,
})

const engine = z.object({
  type: z.literal("engine"),
  /** Of this engine rank, for logs and metrics: "vllm-0". Unique at one planner. */
  name: text.min(1).max(128),
  limits,
  /** Batches that are planned or computing at once: 2 where a step's outcome is known before the next is scheduled (vLLM's
   * Scheduler), 3 where it is not (AsyncScheduler), more with pipeline parallelism. */
  depth: whole.min(1).max(16),
  /** Steps that are being computed when the next is scheduled, on tokens that are known then: a request that should yield one in
   * any of these is not in the next. Left out: 0 (one step at a time, or vLLM's AsyncScheduler). */
  tokenLag: whole.min(0).max(15).optional(),
  /** Prefixes are shared: `arrived.prefix` is told. */
  prefixCaching: z.boolean(),
  /** Most drafted tokens per request and step; 0: none are drafted. */
  maxDrafts: count,
  /** `landed.answeringFrom` says where thoughts end. Without it a request that thinks is held to the shorter of its two paces. */
  tellsThinking: z.boolean(),
  /** Of what step times depend on: what was learnt of one engine is kept for the next like it. */
  model: text,
  /** "cpu", "NVIDIA H100 80GB HBM3", … */
  device: text,
  dtype: text,
  tensorParallel: positive,
  pipelineParallel: positive,
  dataRank: count,
  /** Batch sizes that CUDA graphs were captured for, ascending; others are padded to the next. Empty: none. */
  captureSizes: z.array(positive),
  /** vLLM's `cudagraph_mode` as it turned out: "NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE". */
  graphMode: text,
  /** No graphs and no compilation (--enforce-eager). */
  eager: z.boolean(),
  vllmVersion: text,
  pluginVersion: text,
})

/** A step as the engine has scheduled it. */
const ran = z
  .object({
    /** `plan.batch`, where it is that plan's step; 0: the engine's own choice, no plan was there. */
    batch: count,
    /** When it was scheduled. */
    atUs: us,
    /** It is the plan to the token: the columns are left out. Empty columns: nothing of the plan could run but its
     * evictions, nothing lands. */
    exact: z.boolean(),
    ids: counts.optional(),
    /** Tokens whose KV was in place before (what was found in the cache included). */
    positions: counts.optional(),
    /** Known tokens to compute, drafts not counted. */
    tokens: counts.optional(),
    /** Drafted tokens to verify besides. Left out: none. */
    drafts: counts.optional(),
  })
  .check(({ value, issues }) => {
    if (value.exact && value.batch === 0) complain(issues, value, "exact, but of no plan")
    if (!value.exact && !(value.ids && value.positions && value.tokens))
      complain(issues, value, "neither exact nor with ids, positions and tokens")
    if (!equallyLong(value)) complain(issues, value, UNEQUAL)
  })

/** A step that has landed: what came out of it. */
const landed = z
  .object({
    /** `step.seq` of the message whose `ran` told of it. */
    step: positive,
    /** When its outcome was known. */
    atUs: us,
    /** How long the engine computed it. */
    durationUs: us,
    /** Those of the step that were not aborted meanwhile, and the tokens that came out. Both left out: all of the step, a token of
     * each. That is nearly every step, and columns take longer to write than all else that is told of it. */
    ids: counts.optional(),
    produced: counts.optional(),
    /** Tokens whose KV is in place afterwards. Left out: position + tokens + accepted drafts, each of them. */
    computed: counts.optional(),
    /** Tokens that were really drafted, where fewer than asked for. Left out: as asked. */
    drafted: counts.optional(),
    /** Index among the tokens of the first one after the thinking, −1: not in this step. Left out: −1. */
    answeringFrom: indexes.optional(),
    /** Requests that ended with the last of their tokens (end token, stop token, whatever the reason). One that ends by its own
     * `maxOutputTokens` may be among them as well. This column and those that follow are each of a length of its own. Left out: none. */
    stopped: counts.optional(),
    /** Requests whose KV the engine has dropped since: they will be computed again from the start, or from what is cached. Left out:
     * none. */
    preempted: counts.optional(),
    /** KV blocks that outputs have filled by this step: whose, and the blocks' hashes (they continue `arrived.prefix`), of one
     * length. Left out: outputs are not shared, or filled none. */
    filledIds: counts.optional(),
    filledHashes: counts.optional(),
  })
  .check(({ value, issues }) => {
    const { filledIds, filledHashes, stopped: _, preempted: __, ...others } = value
    if (!equallyLong(others)) complain(issues, value, UNEQUAL)
    if ((others.ids === undefined) !== (others.produced === undefined))
      complain(issues, value, "has only one of ids and produced")
    if (filledIds?.length !== filledHashes?.length) complain(issues, value, UNEQUAL)
  })

/** How far a request had come when the planner was told of it: the plug-in says it of all that are live where it connects. */
const begun = z
  .object({
    /** Tokens that are out. */
    output: count,
    /** Tokens whose KV is in place. */
    computed: count,
    /** How long ago tokens came out, oldest first, and how many then. Their sum is `output`. */
    agoUs: durations,
    tokens: counts,
    /** Only the first and the last time are known: the tokens of the second entry came evenly between the two. */
    even: z.boolean(),
    /** Tokens of its thoughts, where it is past them. Left out: it thinks, or never did. */
    thoughtTokens: count.optional(),
  })
  .check(({ value, issues }) => {
    if (value.agoUs.length !== value.tokens.length) complain(issues, value, UNEQUAL)
    const sum = value.tokens.reduce((all, tokens) => all + tokens, 0)
    if (sum !== value.output)
      complain(issues, value, `has ${sum} tokens with times, but ${value.output} are out`)
  })

const arrived = z.object({
  id: positive,
  /** What the engine calls it: by that name it is asked about later. Left out: by its number. */
  name: text.max(300).optional(),
  /** Since the engine's API had it. */
  ageUs: us.nonnegative(),
  promptTokens: positive,
  /** Most tokens it may yield: its own limit, and what is left of the context. */
  maxOutputTokens: positive,
  /** Chain hashes, of 53 bits, of the full KV blocks of its prompt. Left out: prefixes are not shared. */
  prefix: counts.optional(),
  /** Its arguments `slo_…` as they were given (vLLM: `vllm_xargs`). */
  slo: z.record(text, z.unknown()),
  /** Name of its LoRA; null: none. */
  lora: text.nullable(),
  /** The engine's number of that. Left out: none. */
  adapter: positive.optional(),
  /** Log-probabilities of its prompt are asked for: each of its tokens has an output row. Left out: no. */
  allRows: z.boolean().optional(),
  /** It must not run before its grammar is compiled; `step.ready` says when. */
  waitsForGrammar: z.boolean(),
  /** Left out: nothing of it is computed. */
  begun: begun.optional(),
})

const step = z.object({
  type: z.literal("step"),
  /** 1, 2, 3 …; the plan that answers has the same. */
  seq: positive,
  /** When it was sent. */
  nowUs: us,
  /** The step that was just scheduled; null: none was. */
  ran: ran.nullable(),
  /** Steps that have landed since the last message, oldest first. */
  landed: z.array(landed),
  arrived: z.array(arrived),
  /** Requests whose grammars are there since. */
  ready: counts.optional(),
  /** Requests that were aborted since. What a landed step says of a request comes before. */
  cancelled: counts.optional(),
  /** Requests whose KV the engine has dropped since (for the step of `ran`, as a rule), which no plan asked for. */
  lost: counts.optional(),
  /** KV that the engine has free, its cache included, to compare with what the planner believes. Left out: not told. */
  kvFreeTokens: count.optional(),
  /** Where something has arrived that a plan does not know of, another is asked for in its place if its step should last so long, from
   * now on. Left out: as it was; never, if it was not told. */
  renewsFromUs: us.nonnegative().optional(),
  /** The core that the engine's thread was on. Left out: not told. */
  core: count.optional(),
})

/** What the plug-in says. */
const toPlanner = z.discriminatedUnion("type", [hello, engine, step])

const plan = z
  .object({
    type: z.literal("plan"),
    /** The `step` that it answers: it was made with all that is known from there. An older one is no answer any more. */
    seq: positive,
    /** Number of the batch, ascending; 0: nothing is to run. (An engine that has heard nothing but this for a second, without a
     * `wakeUs`, though it has requests, schedules by itself: the planner has lost one.) */
    batch: count,
    /** How long it should take. */
    predictedUs: us,
    /** In the order in which the engine is to take them. */
    ids: wholes,
    /** Tokens whose KV is to be in place before: 0 starts afresh (what it holds goes), more than it holds is taken from the
     * cache. Where an earlier step with drafts of the request has not landed: if all of them are accepted. */
    positions: wholes,
    /** Known tokens to compute, at least 1. */
    tokens: wholes,
    /** Drafted tokens to verify besides, at most. Left out: none. */
    drafts: wholes.optional(),
    /** Requests whose KV is to be dropped before. Left out: none. */
    evict: wholes.optional(),
    /** With batch 0: nothing is to run before this time, if nothing else happens. Left out: until something does. */
    wakeUs: us.optional(),
  })
  .check(({ value, issues }) => {
    const { ids, positions, tokens, drafts } = value
    if (!equallyLong({ ids, positions, tokens, drafts })) complain(issues, value, UNEQUAL)
  })

/** What the planner says. */
const toPlugin = z.discriminatedUnion("type", [
  hello,
  z.object({
    type: z.literal("ready"),
    policy: text,
    /** Version of SLOs-Serve. */
    version: text,
    /** A step waits so long at least for its plan; where steps are long it may wait longer. */
    maxLagUs: us,
  }),
  /** It does not plan for this engine; the connection ends. One line for the operator. */
  z.object({ type: z.literal("refused"), message: text }),
  plan,
  /** It is being shut down: the engine schedules by itself, and looks for a planner again later. */
  z.object({ type: z.literal("goodbye"), message: text }),
])

export type ToPlanner = z.output<typeof toPlanner>
export type ToPlugin = z.output<typeof toPlugin>
export type EngineMessage = Extract<ToPlanner, { type: "engine" }>
export type StepMessage = Extract<ToPlanner, { type: "step" }>
export type PlanMessage = Extract<ToPlugin, { type: "plan" }>
export type Ran = z.output<typeof ran>
export type Landed = z.output<typeof landed>
export type Arrived = z.output<typeof arrived>
export type Begun = z.output<typeof begun>

/** Throws MessageError for what is none. */
export const readToPlanner = (frame: unknown): ToPlanner => readMessage(toPlanner, frame)
export const readToPlugin = (frame: unknown): ToPlugin => readMessage(toPlugin, frame)

/** For `encodeFrame`: columns as their bytes. */
export function toWire(message: ToPlanner | ToPlugin): object {
  return wire(message, message.type === "plan" ? wholeBytes : columnBytes) as object
}

export function plannerHello(): { type: "hello"; protocol: string; version: number } {
  return { type: "hello", protocol: PLANNER_PROTOCOL, version: PLANNER_VERSION }
}

/** Null, or why an end that says this hello cannot be talked to. */
export function plannerRefusalOf({
  protocol,
  version,
}: {
  protocol: string
  version: number
}): string | null {
  if (protocol !== PLANNER_PROTOCOL) return `it speaks ${protocol.slice(0, 40)}, not ${PLANNER_PROTOCOL}`
  if (version === PLANNER_VERSION) return null
  return (
    `it speaks version ${version} of the planner's protocol, this end version ${PLANNER_VERSION}: ` +
    "install slos-serve and slos-serve-vllm of one release"
  )
}

const UNEQUAL = "has columns of different lengths"

function complain(issues: z.core.$ZodRawIssue[], input: unknown, message: string): void {
  issues.push({ code: "custom", message, input })
}

function equallyLong(columns: object): boolean {
  let length = -1
  for (const column of Object.values(columns)) {
    if (!(column instanceof Float64Array)) continue
    if (length >= 0 && column.length !== length) return false
    length = column.length
  }
  return true
}

function wire(value: unknown, bytesOf: (column: Column) => Uint8Array): unknown {
  if (value instanceof Float64Array) return bytesOf(value as Column)
  if (Array.isArray(value)) return value.map((one) => wire(one, bytesOf))
  if (value === null || typeof value !== "object") return value
  const fields = Object.entries(value).filter(([, of]) => of !== undefined)
  return Object.fromEntries(fields.map(([key, of]) => [key, wire(of, bytesOf)]))
}
