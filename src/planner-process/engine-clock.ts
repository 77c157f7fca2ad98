/** The clock of an engine on another process's monotonic clock: how far it is from ours, by the messages that took least. */

/** Clocks drift, and a machine may have slept: what was found so long ago is found anew. */
const WINDOW_US = 60_000_000

export class EngineClock {
  /** Ours less the engine's, at most what it really is plus the fastest message's way: of this window and the last. */
  #offsetUs = Number.POSITIVE_INFINITY
  #lastOffsetUs = Number.POSITIVE_INFINITY
  #windowEndUs = Number.NEGATIVE_INFINITY

  /** A message said that it was sent at `sentUs`, on the engine's clock; it was read at `readUs`, on ours. */
  heard(sentUs: number, readUs: number): void {
    if (readUs > this.#windowEndUs) {
      this.#lastOffsetUs = this.#offsetUs
      this.#offsetUs = Number.POSITIVE_INFINITY
      this.#windowEndUs = readUs + WINDOW_US
    }
    this.#offsetUs = Math.min(this.#offsetUs, readUs - sentUs)
  }

  /** What the engine's clock shows when ours shows `ourUs`; whole µs. Before the first message: ours. */
  at(ourUs: number): number {
    const offsetUs = Math.min(this.#offsetUs, this.#lastOffsetUs)
    return Math.round(offsetUs < Number.POSITIVE_INFINITY ? ourUs - offsetUs : ourUs)
  }

  /** How much longer than the fastest this message was on its way, µs: in the socket, or waiting to be read. */
  lagUs(sentUs: number, readUs: number): number {
    return Math.max(0, this.at(readUs) - sentUs)
  }
}
