/** The published formats of request traces: how each is recognized, where it is published, and what a line means. One
 * row a format; a line that does not fit is reported by file, line and remedy. */
import { UserError } from "../errors.ts"

/** Leading blocks of a prompt by name: equal ids mean equal text up to the end of that block. The last may be longer than
 * what is left of the prompt. */
export interface PromptPrefix {
  /** A fraction where lengths were scaled: block k ends at token floor((k + 1) · blockTokens). */
  blockTokens: number
  ids: number[]
}

/** One request of a trace. */
export interface TraceRow {
  /** Since the trace's first request, ms; undefined in traces of lengths only. */
  atMs?: number
  /** The whole prompt, history of a conversation included. */
  promptTokens: number
  outputTokens: number
  /** Conversation: this turn's name and the turn it follows, if that is known. */
  chat?: { id: string; parent: string | null }
  prefix?: PromptPrefix
}

export interface TraceFormat {
  name: string
  kind: "csv" | "jsonl"
  /** Columns (or keys of the first line) by which it is recognized; the first format that has all is taken. */
  columns: readonly string[]
  /** Where to get it. */
  published: string
  /** Without prompt or output tokens it is no request: the reader leaves it out. */
  row(line: Line): TraceRow
}

/** Blocks of the published Mooncake traces and of Qwen-Bailian's. */
const MOONCAKE_BLOCK_TOKENS = 512
const BAILIAN_BLOCK_TOKENS = 16

export const TRACE_FORMATS: readonly TraceFormat[] = [
  {
    name: "Azure LLM inference",
    kind: "csv",
    columns: ["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
    published:
      "https://github.com/Azure/AzurePublicDataset (AzureLLMInferenceTrace_conv.csv, _code.csv; 2023)",
    row: (line) => ({
      promptTokens: line.tokens("ContextTokens"),
      outputTokens: line.tokens("GeneratedTokens"),
      atMs: line.date("TIMESTAMP"),
    }),
  },
  {
    name: "BurstGPT",
    kind: "csv",
    columns: ["Timestamp", "Request tokens", "Response tokens"],
    published: "https://github.com/HPMLL/BurstGPT (releases: BurstGPT_1.csv …)",
    // The service's own failures stand in the trace with an answer of 0 tokens.
    row: (line) => ({
      promptTokens: line.tokens("Request tokens"),
      outputTokens: line.tokens("Response tokens"),
      atMs: line.number("Timestamp") * 1000,
    }),
  },
  {
    name: "Vidur lengths",
    kind: "csv",
    columns: ["num_prefill_tokens", "num_decode_tokens"],
    published: "https://github.com/microsoft/vidur (data/processed_traces)",
    row: (line) => ({
      promptTokens: line.tokens("num_prefill_tokens"),
      outputTokens: line.tokens("num_decode_tokens"),
    }),
  },
  {
    name: "Qwen-Bailian",
    kind: "jsonl",
    columns: ["chat_id", "parent_chat_id", "timestamp", "input_length", "output_length"],
    published: "https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon",
    row: (line) => {
      const parent = line.key("parent_chat_id")
      return {
        promptTokens: line.tokens("input_length"),
        outputTokens: line.tokens("output_length"),
        atMs: line.number("timestamp") * 1000,
        chat: { id: line.key("chat_id"), parent: parent === "-1" ? null : parent },
        ...line.prefix("hash_ids", BAILIAN_BLOCK_TOKENS),
      }
    },
  },
  {
    name: "Mooncake",
    kind: "jsonl",
    columns: ["timestamp", "input_length", "output_length", "hash_ids"],
    published: "https://github.com/kvcache-ai/Mooncake (FAST25-release/traces)",
    row: (line) => ({
      promptTokens: line.tokens("input_length"),
      outputTokens: line.tokens("output_length"),
      atMs: line.number("timestamp"),
      ...line.prefix("hash_ids", MOONCAKE_BLOCK_TOKENS),
    }),
  },
]

/** A Map cannot hold more entries. */
const MOST_ENTRIES = 2 ** 24 - 1

/** Numbers by key, as many as memory holds. */
class Numbers {
  readonly #maps = [new Map<unknown, number>()]

  get(key: unknown): number | undefined {
    for (const map of this.#maps) {
      const number = map.get(key)
      if (number !== undefined) return number
    }
    return undefined
  }

  /** Of a key that has none. */
  set(key: unknown, number: number): void {
    if (this.#maps.at(-1)!.size === MOST_ENTRIES) this.#maps.push(new Map())
    this.#maps.at(-1)!.set(key, number)
  }
}

/** Numbers the blocks of a file's prompts from 0: equal numbers mean equal prompts up to the end of the block. A trace's
 * hash may be of the block alone (Qwen-Bailian's are): after another block it is another number. */
export class PrefixNames {
  /** By hash, after the block that it was first seen after. */
  readonly #first = new Numbers()
  readonly #before: number[] = []
  /** By the block before and the hash. */
  readonly #others = new Numbers()

  idOf(hash: unknown, before: number): number {
    const first = this.#first.get(hash)
    if (first === undefined) this.#first.set(hash, this.#before.length)
    else if (this.#before[first] === before) return first
    else {
      const key = `${before} ${hash}`
      const other = this.#others.get(key)
      if (other !== undefined) return other
      this.#others.set(key, this.#before.length)
    }
    return this.#before.push(before) - 1
  }
}

/** One record and where it stands, read value by value. */
export class Line {
  private readonly record: Readonly<Record<string, unknown>>
  private readonly where: string
  private readonly prefixes: PrefixNames

  constructor(record: Readonly<Record<string, unknown>>, where: string, prefixes: PrefixNames) {
    this.record = record
    this.where = where
    this.prefixes = prefixes
  }

  tokens(column: string): number {
    const value = this.read(column)
    if (!Number.isInteger(value) || value < 0 || value > 1e7)
      throw this.wrong(column, "a whole number of tokens ≥ 0")
    return value
  }

  number(column: string): number {
    const value = this.read(column)
    if (!Number.isFinite(value) || value < 0) throw this.wrong(column, "a time as a number ≥ 0")
    return value
  }

  /** "2023-11-16 18:17:03.9799600" (UTC, 100 ns digits), ISO 8601, or seconds as a number; in ms. */
  date(column: string): number {
    const text = String(this.record[column])
    if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000
    const match = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:?\d\d)?$/.exec(text)
    const base = match === null ? Number.NaN : Date.parse(`${match[1]}T${match[2]}${match[4] ?? "Z"}`)
    if (Number.isNaN(base)) throw this.wrong(column, "a time such as 2023-11-16 18:17:03.979")
    return base + Number(match?.[3] ?? 0) * 1000
  }

  key(column: string): string {
    const value = this.record[column]
    if (typeof value !== "number" && typeof value !== "string") throw this.wrong(column, "a number or a name")
    return String(value)
  }

  /** Optional list of block hashes. */
  prefix(column: string, blockTokens: number): { prefix?: PromptPrefix } {
    const value = this.record[column]
    if (value === undefined || value === null) return {}
    const isHash = (id: unknown) => typeof id === "number" || typeof id === "string"
    if (!Array.isArray(value) || !value.every(isHash)) throw this.wrong(column, "a list of block hashes")
    let before = -1
    const ids = value.map((hash) => {
      before = this.prefixes.idOf(hash, before)
      return before
    })
    return { prefix: { blockTokens, ids } }
  }

  private read(column: string): number {
    const value = this.record[column]
    if (typeof value === "number") return value
    return typeof value === "string" && value !== "" ? Number(value) : Number.NaN
  }

  private wrong(column: string, expected: string): UserError {
    const shown = JSON.stringify(this.record[column]) ?? "missing"
    return new UserError(
      `${this.where}: ${column} is ${shown}; expected ${expected} (mend or delete the line)`,
    )
  }
}
