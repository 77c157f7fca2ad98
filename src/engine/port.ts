/** The engine port: what every inference engine behind the scheduler must do. One `execute` is one forward
 * step of exactly the batch it is given (docs/design.md, Engine). Implementations: llama/, fake/. */
import type { Batch, EngineLimits, RequestId, StepFailure } from "../core/protocol.ts"
import type { ControlTokens, Special } from "./control-tokens.ts"

/** How tokens are chosen. Names and meanings are OpenAI's and llama.cpp's. */
export interface Sampling {
  /** 0 = greedy. */
  temperature: number
  /** 0 = off. */
  topK: number
  /** 1 = off. */
  topP: number
  /** 0 = off. */
  minP: number
  /** 1 = off; over the last `repeatLastTokens` tokens. */
  repeatPenalty: number
  frequencyPenalty: number
  presencePenalty: number
  repeatLastTokens: number
  /** Unsigned 32-bit. */
  seed: number
  /** Never choose an end-of-generation token (forced lengths). */
  ignoreEos: boolean
  /** No end-of-generation token among the first so many output tokens. */
  minTokens: number
  /** Added to the logits of single tokens. */
  logitBias: readonly (readonly [token: number, bias: number])[]
  /** Sequences of tokens that the output shall not have: the last of one does not come after the others. Where a grammar
   * leaves nothing else, it does: the output's form counts more. Left out: none. */
  badWords?: readonly (readonly number[])[]
  /** Grammar that the output must match, in XGrammar's EBNF, with its bounded strings marked
   * (constraint/counted.ts); or null. It must be on hold. */
  grammar: string | null
  /** 0 = none; n = the log-probabilities of the chosen token and of the n likeliest. */
  logprobs: number
  /** The same of each token of the prompt but the first. They are of what is computed: no KV may be shared. Left out: none. */
  promptLogprobs?: number
  /** Its prompt's embedding is wanted, and no answer: one token ends it, which means nothing. Left out: an answer is. */
  embedding?: boolean
}

export const GREEDY: Sampling = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  repeatLastTokens: 64,
  seed: 0,
  ignoreEos: false,
  minTokens: 0,
  logitBias: [],
  grammar: null,
  logprobs: 0,
}

export interface TokenLogprob {
  token: number
  logprob: number
  top: { token: number; logprob: number }[]
}

/** What one request of the batch produced. Items that do not `sample` produce no row. */
export interface StepRow {
  id: RequestId
  /** New tokens in order; length 1 without speculation, else accepted drafts and the sure one. An
   * end-of-generation token is included, and is the last. */
  tokens: number[]
  /** Tokens that were drafted and verified: at most `BatchItem.draft`, fewer where the drafter had no idea. */
  drafted: number
  /** Nothing was drafted because the drafter is still reading what came before. */
  behind?: boolean
  /** The last token is an end-of-generation token. */
  end: boolean
  /** Parallel to `tokens` when asked for. */
  logprobs?: TokenLogprob[]
  /** Of the prompt's tokens from the second on, when asked for: with the first row that there is. */
  prompt?: TokenLogprob[]
  /** Of the prompt, when asked for; of length one. */
  embedding?: Float32Array
}

export type StepOutput =
  | { ok: true; rows: StepRow[] /** Wall (or virtual) time of the step, µs. */; durationUs: number }
  | { ok: false; reason: StepFailure; message: string; durationUs: number }

/** Text in and out of tokens. Thread-safe against a running step. */
export interface Tokenizer {
  /** Off the event loop for long texts. `special`: which spellings of control tokens stand for them. */
  encode(text: string, options: { special: Special; addBos: boolean }): Promise<Int32Array>
  /** Tokens such as <|im_start|>, which no text of a user should become. */
  readonly controls: ControlTokens
  /** No token stands for more bytes of text. */
  readonly longestTokenBytes: number
  /** Bytes of a token (possibly part of a UTF-8 character); empty for control tokens. */
  bytes(token: number): Uint8Array
  isEnd(token: number): boolean
}

export interface GrammarHolds {
  /** Compiles a grammar, off the event loop, and keeps it until the answer is called. Throws a UserError for what is
   * no grammar or takes too long (400), and where too many are in use (429). */
  hold(grammar: string): Promise<() => void>
  /** Whether `hold` answers without waiting for a compilation. */
  answersAtOnce(grammar: string): boolean
}

export interface ModelInfo {
  /** Name shown by /v1/models. */
  name: string
  /** Identifies weights, and how they are run, for caches of profiles. */
  fingerprint: string
  /** Jinja chat template of the model file, or null. */
  chatTemplate: string | null
  bosText: string
  eosText: string
  trainedContextTokens: number
  vocabSize: number
  parameters: number
  /** Weights are random: answers are noise. */
  random: boolean
  /** How a prompt's hidden states become its embedding; null: in a way that is not done here. Left out: it is not known. */
  pooling?: Pooling | null
}

/** The state of the last token, or the mean of all. */
export type Pooling = "last" | "mean"

export interface Engine {
  readonly model: ModelInfo
  readonly limits: EngineLimits
  readonly tokenizer: Tokenizer
  /** Where grammars are put on hold before a request with one is opened. */
  readonly constraints: GrammarHolds
  /** Make a request's prompt and sampling known; costs no KV. Before its first batch item. `output`: tokens that it has
   * produced elsewhere. It goes on after them as if it had produced them here: randomness, penalties, grammar and least
   * length count them, its steps compute their KV like a prompt's. Throws where the last of them is an end token. */
  open(id: RequestId, prompt: Int32Array, sampling: Sampling, output?: Int32Array): void
  /** One step: prefix copies, evictions and releases, one forward pass, sampling. One at a time.
   * Never throws for a failed step: the answer says so and no item of the batch has advanced; evictions and
   * releases are done all the same. */
  execute(batch: Batch): Promise<StepOutput>
  /** Free everything. After a running step has ended. */
  close(): Promise<void>
}
