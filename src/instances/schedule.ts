/** A planned schedule: batches back to back from the instance's `now`, as `slos-serve plan` writes them. */

export interface PlannedBatch {
  /** Duration, seconds. */
  t: number
  /** Prefill: [request id, tokens]. */
  p: [number, number][]
  /** Decodes: tokens verified per request (1 = no speculation) → ids as ranges, "0-3,7". */
  d: Record<string, string>
  /** On the last batch: go on this many batches away (−1 = this one again), for ever. */
  next?: number
}

export interface Plan {
  feasible: boolean
  /** Ids of the accepted NEW requests. */
  accepted: number[]
  profit: number
  batches: PlannedBatch[]
}

/** [0,1,2,3,7] → "0-3,7". */
export function toRanges(ids: readonly number[]): string {
  const sorted = [...ids].sort((a, b) => a - b)
  const parts: string[] = []
  for (let i = 0; i < sorted.length; ) {
    let end = i
    while (end + 1 < sorted.length && sorted[end + 1] === sorted[end]! + 1) end++
    parts.push(end === i ? `${sorted[i]}` : `${sorted[i]}-${sorted[end]}`)
    i = end + 1
  }
  return parts.join(",")
}

/** "0-3,7" → [0,1,2,3,7]. */
export function fromRanges(text: string): number[] {
  if (text === "") return []
  return text.split(",").flatMap((part) => {
    const [from, to] = part.split("-").map(Number)
    return Array.from({ length: (to ?? from!) - from! + 1 }, (_, i) => from! + i)
  })
}

/** Group decodes by the tokens they verify. */
export function decodesOf(tokens: ReadonlyMap<number, number>): Record<string, string> {
  const groups = new Map<number, number[]>()
  for (const [id, n] of tokens) {
    const group = groups.get(n)
    if (group === undefined) groups.set(n, [id])
    else group.push(id)
  }
  return Object.fromEntries([...groups].map(([n, ids]) => [String(n), toRanges(ids)]))
}
