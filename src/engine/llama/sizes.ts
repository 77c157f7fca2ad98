/** How many requests, of which length, a context of llama.cpp is made for where the user does not say. Its KV is taken as a
 * whole at the start (llama.cpp writes zeros to all of it), so it must suit the model and the machine. */

export interface SizesAsked {
  /** Given by the user; undefined: to be chosen. */
  contextTokens?: number | undefined
  maxSequences?: number | undefined
}

export interface SizesGround {
  trainedTokens: number
  weightBytes: number
  kvBytesPerToken: number
  /** Of the machine, or of the container; half of it where two processes like this one share it. */
  memoryBytes: number
  /** Processes like this one that share what would be one's. */
  processes: number
  /** Its KV is not in this machine's memory. */
  gpu: boolean
}

export interface Sizes {
  contextTokens: number
  maxSequences: number
  /** What was chosen for which reason, in words; empty where the user said all of it. */
  why: string
}

export const DEFAULT_CONTEXT_TOKENS = 4096
/** No shorter one is chosen. */
const LEAST_CONTEXT_TOKENS = 512
const MOST_SEQUENCES = 32
/** Fewer keep too few sessions' prefixes, and hold back what could decode beside others. */
const SEQUENCES = 16
const LEAST_SEQUENCES = 4
/** KV of a small model, whatever its weights are; beyond these a large one's seldom has requests that fill it. */
const SMALL_BYTES = 2 ** 30
const TIMES_WEIGHTS = 2
/** Other programs run here as well. */
const SHARE_OF_MEMORY = 1 / 8
/** What is more than this is shortened. */
const MOST_OF_MEMORY = 1 / 4

/** As many requests as suit the model, fewer where the machine has little memory, and shorter ones where even few take too
 * much. What the user gave stays as it is. */
export function chooseSizes(asked: SizesAsked, ground: SizesGround): Sizes {
  const { trainedTokens, kvBytesPerToken, memoryBytes, gpu } = ground
  let contextTokens = asked.contextTokens ?? Math.min(DEFAULT_CONTEXT_TOKENS, trainedTokens)
  const sequences = () => asked.maxSequences ?? sequencesFor(contextTokens * kvBytesPerToken, ground)
  const isTooMuch = () => sequences() * contextTokens * kvBytesPerToken > memoryBytes * MOST_OF_MEMORY
  if (asked.contextTokens === undefined && !gpu)
    while (contextTokens / 2 >= LEAST_CONTEXT_TOKENS && isTooMuch())
      contextTokens = Math.floor(contextTokens / 2)
  const sizes = { contextTokens, maxSequences: sequences() }
  return { ...sizes, why: whyOf(asked, sizes, ground) }
}

function sequencesFor(bytesEach: number, ground: SizesGround): number {
  const { weightBytes, memoryBytes, processes, gpu } = ground
  const part = (whole: number) => Math.max(1, Math.floor(whole / processes))
  if (gpu) return part(MOST_SEQUENCES)
  const fitting = (bytes: number) => Math.floor(bytes / bytesEach)
  const suiting = fitting(Math.max(SMALL_BYTES, TIMES_WEIGHTS * weightBytes) / processes)
  const wanted = Math.min(part(MOST_SEQUENCES), Math.max(suiting, part(SEQUENCES)))
  return Math.min(wanted, Math.max(fitting(memoryBytes * SHARE_OF_MEMORY), part(LEAST_SEQUENCES)))
}

function whyOf(asked: SizesAsked, sizes: Omit<Sizes, "why">, ground: SizesGround): string {
  const { contextTokens, maxSequences } = sizes
  const reasons: string[] = []
  if (asked.contextTokens === undefined) {
    if (contextTokens === DEFAULT_CONTEXT_TOKENS) reasons.push(`--context ${contextTokens}`)
    else if (contextTokens === ground.trainedTokens)
      reasons.push(`--context ${contextTokens}, as it was trained`)
    else reasons.push(`--context ${contextTokens}: longer ones take too much memory`)
  }
  if (asked.maxSequences === undefined) {
    const most = maxSequences === Math.max(1, Math.floor(MOST_SEQUENCES / ground.processes))
    const scarce = maxSequences < Math.floor(SEQUENCES / ground.processes)
    const why = most
      ? ""
      : scarce
        ? ": this machine has no more memory for it"
        : ": enough for a model of this size"
    reasons.push(`--max-sequences ${maxSequences}${why}`)
  }
  return reasons.join("; ")
}
