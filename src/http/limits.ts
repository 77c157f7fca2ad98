/** How large each part of a request may be: one table for the bodies of all routes, checked while they arrive
 * (`body-scanner.ts`), so that no body costs more than it can be worth. docs/api.md shows it. */
import { UserError, userError } from "../errors.ts"

/** What the sizes of prompts follow from; null while there is no model. */
export interface PromptSizes {
  /** Most tokens of a prompt and its answer. */
  contextTokens: number
  /** No token stands for more bytes of text. */
  longestTokenBytes: number
}

export interface Limit {
  /** Path of an array or object: `[]` stands for each entry of an array; "" is the body. */
  at: string
  /** Most entries of it. */
  entries?: number
  /** Most entries of all arrays and objects within it. Those of a part with a limit of its own do not count. */
  values?: number
  /** Most bytes of the texts within it, an escape counted as one. Likewise. */
  textBytes?: number
  /** The prompt itself: too much of it is more than the context holds. */
  isPrompt?: boolean
  /** Why not more. */
  because: string
  /** What to do instead. */
  instead: string
}

const MIB = 2 ** 20

/** Levels of arrays and objects. The deepest bodies are schemas: 64 levels of two each, and what is around them. */
export const MOST_DEPTH = 160
/** Fields of all objects together: new names are what costs JSON most, about 2 µs each. */
export const MOST_FIELDS = 30_000
/** Bytes of a field's name. */
export const MOST_NAME_BYTES = 1000
/** Characters of a number: what a double needs at most is 24, exact decimals of small ones a thousand. */
export const MOST_NUMBER_CHARACTERS = 1100
/** Of an array or object that no row is about. */
const MOST_ENTRIES = 10_000
/** Most choices of one request, over all its prompts. */
export const MOST_CHOICES = 128
export const MOST_STOPS = 16
/** Texts of one request for embeddings. */
export const MOST_INPUTS = 2048
const MOST_CONTEXT: PromptSizes = { contextTokens: 1_000_000, longestTokenBytes: 64 }

/** The table. Its order is that of docs/api.md. */
export function bodyLimits(sizes: PromptSizes | null): Limit[] {
  const { contextTokens, longestTokenBytes } = sizes ?? MOST_CONTEXT
  const promptBytes = contextTokens * longestTokenBytes
  const shorten = "shorten it"
  return [
    {
      at: "",
      entries: 256,
      values: 100_000,
      textBytes: MIB,
      because: "a request has some fifty fields, and all of them are read before anything else is",
      instead: "leave out what this server does not read",
    },
    {
      at: "messages",
      entries: 4096,
      textBytes: promptBytes,
      isPrompt: true,
      because: "a template gives each a few tokens and takes time for each",
      instead: "leave out the oldest",
    },
    {
      at: "messages[].content",
      entries: 1024,
      because: "parts are joined to one text",
      instead: "join the parts",
    },
    {
      at: "messages[].tool_calls",
      entries: 256,
      because: "as many as there are tools",
      instead: "send them in several messages",
    },
    {
      at: "input[].content",
      entries: 1024,
      because: "parts are joined to one text",
      instead: "join the parts",
    },
    {
      at: "instructions",
      textBytes: promptBytes,
      isPrompt: true,
      because: "a text that fits into the context",
      instead: shorten,
    },
    {
      at: "system",
      entries: 1024,
      textBytes: promptBytes,
      isPrompt: true,
      because: "a text that fits into the context",
      instead: shorten,
    },
    {
      at: "stop_sequences",
      entries: MOST_STOPS,
      because: "the whole answer is searched for each",
      instead: "send those that are likely",
    },
    {
      at: "tools",
      entries: 256,
      because: "each is read by the model",
      instead: "send those that are needed",
    },
    {
      at: "prompt",
      entries: Math.max(MOST_CHOICES, contextTokens),
      values: 1_000_000,
      isPrompt: true,
      because: "token ids that fit into the context, or a prompt for each of the most choices",
      instead: shorten,
    },
    {
      at: "prompt[]",
      entries: contextTokens,
      textBytes: promptBytes,
      isPrompt: true,
      because: "token ids, or a text, that fit into the context",
      instead: shorten,
    },
    {
      at: "input",
      entries: Math.max(MOST_INPUTS, contextTokens),
      values: 1_000_000,
      isPrompt: true,
      because: "token ids that fit into the context, or a text for each embedding",
      instead: "send them in several requests",
    },
    {
      at: "input[]",
      entries: contextTokens,
      textBytes: promptBytes,
      isPrompt: true,
      because: "token ids, or a text, that fit into the context",
      instead: shorten,
    },
    {
      at: "tokens",
      entries: contextTokens,
      because: "as many as fit into the context",
      instead: "send them in pieces",
    },
    {
      at: "stop",
      entries: MOST_STOPS,
      because: "the whole answer is searched for each",
      instead: "send those that are likely",
    },
    {
      at: "logit_bias",
      entries: 1024,
      because: "each is added in every step of the request",
      instead: "send the strongest",
    },
  ]
}

/** The error of a part that is larger than its limit. */
export function tooLarge(limit: Limit, path: string, what: string): UserError {
  return wrong(path, `${what} (${limit.because}): ${limit.instead}`)
}

/** The error of a prompt that is longer than the context. */
export function promptTooLong(contextTokens: number, param: string): UserError {
  const prompt = `at least ${contextTokens + 1}`
  const requested = `at least ${contextTokens + 2}`
  return userError(
    "context_length_exceeded",
    { limit: contextTokens, requested, prompt, completion: 1 },
    { param },
  )
}

/** The error of a field of the body. */
export function wrong(path: string, why: string): UserError {
  const param = path === "" ? null : path
  return new UserError(`Invalid ${param === null ? "body" : `'${param}'`}: ${why}.`, {
    code: "invalid_value",
    param,
  })
}

/** A node of the table, as the scanner walks it. */
export interface LimitNode {
  limit: Limit | null
  entries: number
  fields: ReadonlyMap<string, LimitNode>
  /** Of each entry of an array. */
  item: LimitNode
}

const NONE = { limit: null, entries: MOST_ENTRIES, fields: new Map() } as const
/** Parts that no row is about. */
export const UNLISTED: LimitNode = Object.assign({ ...NONE, item: null as unknown as LimitNode })
UNLISTED.item = UNLISTED

const trees = new Map<string, LimitNode>()

/** The table as a tree, by the steps of its paths. */
export function limitsFor(sizes: PromptSizes | null): LimitNode {
  const key = `${sizes?.contextTokens} ${sizes?.longestTokenBytes}`
  const tree = trees.get(key) ?? limitTree(bodyLimits(sizes))
  trees.set(key, tree)
  return tree
}

function limitTree(limits: readonly Limit[]): LimitNode {
  const under = (path: string): LimitNode => {
    const limit = limits.find(({ at }) => at === path) ?? null
    const next = limits.flatMap(({ at }) =>
      at !== path && at.startsWith(path) ? [at.slice(path.length)] : [],
    )
    const names = new Set(next.flatMap((rest) => /^\.?([a-z_]+)/.exec(rest)?.[1] ?? []))
    const below = (name: string) => under(path === "" ? name : `${path}.${name}`)
    return {
      limit,
      entries: limit?.entries ?? MOST_ENTRIES,
      fields: new Map([...names].map((name) => [name, below(name)])),
      item: next.some((rest) => rest.startsWith("[]")) ? under(`${path}[]`) : UNLISTED,
    }
  }
  return under("")
}
