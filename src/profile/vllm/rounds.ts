/** What is asked of a running engine to find out its step times: requests that decode together, and prompts that come while they
 * do. Each decode gets a token a step, so that the gaps between its tokens are the steps. */

export interface RoundStream {
  promptTokens: number
  outputTokens: number
  /** It is sent when the round's first stream has so many tokens. */
  after: number
}
export interface Round {
  kind: "decodes" | "prompts"
  /** Those sent at once come first. */
  streams: readonly RoundStream[]
}

/** When a stream was sent and its tokens came, µs on any clock. */
export interface StreamTimes {
  sentUs: number
  tokens: readonly { count: number; atUs: number }[]
}

/** Plays rounds on an engine. */
export interface Player {
  play(round: Round): Promise<StreamTimes[]>
}

export interface GridOptions {
  /** Most requests at a time. */
  maxConcurrency: number
  /** Longest prompt, tokens: it must fit into one step. */
  maxPrompt: number
  /** Most tokens of a prompt and its output. */
  contextTokens: number
  /** Half the grid. */
  quick: boolean
}

const SHORT_PROMPT = 24
/** Steps watched of each set of decodes, and between two prompts that come while others decode. */
const WATCHED = 24
const BETWEEN = 8
const CONCURRENCY = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
const PROMPTS = [8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096]

/** Small ones first: they warm the engine up. */
export function roundsOf({ maxConcurrency, maxPrompt, contextTokens, quick }: GridOptions): Round[] {
  const every = <T>(list: readonly T[]) => list.filter((_, i) => !quick || i % 2 === 0)
  const counts = every(CONCURRENCY).filter((count) => count <= maxConcurrency)
  const room = (outputs: number) => contextTokens - outputs - 1
  const rounds: Round[] = []
  for (const count of counts) {
    const outputs = WATCHED + count
    const long = Math.min(maxPrompt, room(outputs), 1024)
    const contexts = long >= 4 * SHORT_PROMPT ? [SHORT_PROMPT, long] : [SHORT_PROMPT]
    for (const promptTokens of contexts)
      rounds.push({ kind: "decodes", streams: decoding(count, promptTokens, outputs) })
  }
  for (const count of [1, 8, 32].filter((count) => count <= maxConcurrency)) {
    const lengths = every(PROMPTS).filter((length) => length <= Math.min(maxPrompt, room(1)))
    const most = Math.max(1, Math.floor((room(SHORT_PROMPT) - WATCHED - count) / BETWEEN))
    for (let from = 0; from < lengths.length; from += most)
      rounds.push(prompts(count, lengths.slice(from, from + most)))
  }
  return rounds.filter(({ streams }) =>
    streams.every((one) => one.promptTokens + one.outputTokens <= contextTokens),
  )
}

function prompts(count: number, lengths: readonly number[]): Round {
  const outputs = WATCHED + count + BETWEEN * lengths.length
  const coming = lengths.map((promptTokens, i) => ({
    promptTokens,
    outputTokens: 1,
    after: count + 4 + BETWEEN * i,
  }))
  return { kind: "prompts", streams: [...decoding(count, SHORT_PROMPT, outputs), ...coming] }
}

function decoding(count: number, promptTokens: number, outputTokens: number): RoundStream[] {
  return Array.from({ length: count }, () => ({ promptTokens, outputTokens, after: 0 }))
}
