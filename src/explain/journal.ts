/** The last answers, bounded in number and in bytes: the oldest go first. */
import { type AnswerRecord, bytesOf, isMissed } from "./record.ts"

export interface JournalOptions {
  /** Most answers; and about how much memory they may take. */
  most?: number
  mostBytes?: number
}

const MOST = 4096
const MOST_BYTES = 8 * 1024 * 1024

/** What is asked for. */
export interface Asked {
  /** Only what missed an objective. */
  missed?: boolean
  most: number
  /** Only what ended later than this, Unix time, ms. */
  sinceMs?: number
  /** Only this tenant's; null: all. */
  tenant: string | null
}

/** Of a request, where a response's is given. */
export function plainId(id: string): string {
  return id.replace(/^(chatcmpl-|cmpl-|resp_|msg_)/, "")
}

export class Journal {
  readonly #most: number
  readonly #mostBytes: number
  /** By the order in which they ended. */
  readonly #records = new Map<number, AnswerRecord>()
  readonly #byId = new Map<string, number[]>()
  #next = 0
  #bytes = 0

  constructor({ most = MOST, mostBytes = MOST_BYTES }: JournalOptions = {}) {
    this.#most = most
    this.#mostBytes = mostBytes
  }

  get size(): number {
    return this.#records.size
  }
  get bytes(): number {
    return this.#bytes
  }

  add(record: AnswerRecord): void {
    const number = this.#next++
    this.#records.set(number, record)
    this.#bytes += bytesOf(record)
    const same = this.#byId.get(record.id)
    if (same === undefined) this.#byId.set(record.id, [number])
    else same.push(number)
    while (this.#records.size > this.#most || this.#bytes > this.#mostBytes) this.#forgetOldest()
  }

  /** All answers to the request of that id, also as a response names it (`chatcmpl-…`). A client may use an id again: then
   * of all of them, in the order in which they ended. */
  find(id: string, tenant: string | null): AnswerRecord[] {
    const numbers = this.#byId.get(id) ?? this.#byId.get(plainId(id)) ?? []
    const found = numbers.map((number) => this.#records.get(number)!)
    return found.filter((record) => tenant === null || record.tenant === tenant)
  }

  /** The last first. */
  recent({ missed = false, most, sinceMs = 0, tenant }: Asked): AnswerRecord[] {
    const found: AnswerRecord[] = []
    for (let number = this.#next - 1; found.length < most; number--) {
      const record = this.#records.get(number)
      if (record === undefined || record.endedMs < sinceMs) break
      if (tenant !== null && record.tenant !== tenant) continue
      if (!missed || isMissed(record)) found.push(record)
    }
    return found
  }

  #forgetOldest(): void {
    const number = this.#next - this.#records.size
    const record = this.#records.get(number)!
    this.#records.delete(number)
    this.#bytes -= bytesOf(record)
    const same = this.#byId.get(record.id)!
    same.shift()
    if (same.length === 0) this.#byId.delete(record.id)
  }
}
