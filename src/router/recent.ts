/** What was sent to each replica that its last snapshot does not show yet: without it all arrivals of half a second go where
 * it was quiet before. */
import type { Snapshot } from "../core/protocol.ts"

interface Sent {
  atUs: number
  promptTokens: number
}

/** A replica not heard of for so long is not chosen by what it said. */
const FORGOTTEN_US = 10_000_000

const NOTHING = { requests: 0, promptTokens: 0 } as const

export class Recent {
  /** By replica, in order of time. */
  #sent: Sent[][] = []

  note(replica: number, promptTokens: number, nowUs: number): void {
    const sent = this.#sent[replica]
    if (sent === undefined) this.#sent[replica] = [{ atUs: nowUs, promptTokens }]
    else {
      dropUntil(sent, nowUs - FORGOTTEN_US)
      sent.push({ atUs: nowUs, promptTokens })
    }
  }

  /** What came after the snapshot was taken. */
  since(replica: number, { nowUs }: Snapshot): { requests: number; promptTokens: number } {
    const sent = this.#sent[replica]
    if (sent === undefined || sent.length === 0) return NOTHING
    dropUntil(sent, nowUs)
    let promptTokens = 0
    for (const one of sent) promptTokens += one.promptTokens
    return { requests: sent.length, promptTokens }
  }

  forget(replica: number): void {
    this.#sent[replica] = []
  }
}

function dropUntil(sent: Sent[], atUs: number): void {
  let old = 0
  while (old < sent.length && sent[old]!.atUs <= atUs) old++
  if (old > 0) sent.splice(0, old)
}
