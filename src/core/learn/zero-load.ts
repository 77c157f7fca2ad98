/** What prefills took in service bounds what the profile says that they take on an idle server (docs/design.md, Objectives):
 * a TTFT given as a slowdown is a multiple of that time, and a profile that is wildly off must not make it meaningless. */
import type { Batch, BatchItem } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"

/** So far the profile may be off what was seen: it is of other prompts, and of another hour. */
const TOLERANCE = 1.5
/** A prefill bounds those of up to so many times its tokens. */
const REACH = 2
/** Alone on the engine: one may have met a stall, of so many the fastest has not. */
const FEWEST_ALONE = 3
/** With each prefill the fastest of its size fades by so much: the machine may have become slower for good. */
const FADING = 1 / 256
/** Sizes are powers of two, up to this one. */
const SIZES = 32

interface Fastest {
  tokens: number
  us: number
  count: number
}

export class ZeroLoad {
  /** By size: the fastest prefill in steps that it may have shared, and the fastest with the engine to itself. */
  #shared: (Fastest | null)[] = Array.from({ length: SIZES }, () => null)
  #alone: (Fastest | null)[] = Array.from({ length: SIZES }, () => null)

  /** An item of a prompt was computed in a step of `us`. */
  computed(request: LiveRequest, item: BatchItem, { items }: Pick<Batch, "items">, us: number): void {
    request.prefillUs += us
    request.prefillAlone &&= items.length === 1
    // One all of whose rows are read says nothing of others.
    if (!item.sample || request.preemptions > 0 || request.spec.allRows) return
    const { cachedTokens, spec } = request
    const tokens = spec.promptTokens - cachedTokens
    this.observe(tokens, request.prefillUs, request.prefillAlone && cachedTokens === 0)
  }

  /** A prefill of `tokens` tokens was in steps that took `us` together; `alone`: nothing else was in them, and it began at
   * the prompt's first token. */
  observe(tokens: number, us: number, alone: boolean): void {
    if (tokens < 1 || us <= 0) return
    const size = Math.floor(Math.log2(tokens))
    this.#shared[size] = faster(this.#shared[size]!, tokens, us)
    if (alone) this.#alone[size] = faster(this.#alone[size]!, tokens, us)
  }

  /** `profileUs` for a prompt of `tokens` tokens, kept within what was seen. */
  bounded(tokens: number, profileUs: number): number {
    return Math.min(Math.max(profileUs, this.#leastUs(tokens)), this.#mostUs(tokens))
  }

  /** With the engine to itself it takes no longer than one of as many tokens took beside others; a longer one not more than
   * attention would, which grows with the square. */
  #mostUs(tokens: number): number {
    let most = Number.POSITIVE_INFINITY
    for (const seen of this.#shared)
      if (seen !== null && tokens <= REACH * seen.tokens)
        most = Math.min(most, TOLERANCE * seen.us * Math.max(1, tokens / seen.tokens) ** 2)
    return most
  }

  /** Nor less time than one of fewer tokens. */
  #leastUs(tokens: number): number {
    let least = 0
    for (const seen of this.#alone)
      if (seen !== null && seen.count >= FEWEST_ALONE && seen.tokens <= tokens)
        least = Math.max(least, seen.us / TOLERANCE)
    return least
  }
}

function faster(before: Fastest | null, tokens: number, us: number): Fastest {
  const count = (before?.count ?? 0) + 1
  if (before === null) return { tokens, us, count }
  const faded = before.us * (1 + FADING)
  // Of one size they are compared by the token.
  return us / tokens <= faded / before.tokens
    ? { tokens, us, count }
    : { tokens: before.tokens, us: faded, count }
}
