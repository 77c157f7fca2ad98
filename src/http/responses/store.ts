/** Responses that are kept for their clients, to be read again and gone on with: bounded in number and in bytes, over all
 * tenants. Where there are too many, those go first that were used longest ago, of the tenant that holds the most. */
import type { ResponseObject } from "./format.ts"
import type { StoredItem } from "./schema.ts"

export interface ResponseStoreOptions {
  /** Most responses; 0: none is kept. */
  most?: number
  /** Most bytes of them, as JSON. */
  mostBytes?: number
}

const MOST = 4096
const MOST_BYTES = 64 * 1024 * 1024
/** What keeping a response takes besides its JSON. */
const ENTRY_BYTES = 1000

/** What one response added to a conversation. */
interface Turn {
  before: Turn | null
  items: readonly StoredItem[]
  bytes: number
  /** Responses and later turns that need it. */
  holders: number
}

interface Kept {
  response: ResponseObject
  turn: Turn
  bytes: number
}

/** A conversation up to some response. */
export interface Conversation {
  items: readonly StoredItem[]
  /** That response. */
  last: string | null
  /** As the store knows it; null: only by that. */
  turn: Turn | null
}

export const NO_CONVERSATION: Conversation = { items: [], last: null, turn: null }

type Soon<T> = T | Promise<T>

/** Keeps responses: here, or where several processes keep theirs together. See `ResponseStore`. */
export interface KeepsResponses {
  readonly keeps: boolean
  has(tenant: string, id: string): Soon<boolean>
  get(tenant: string, id: string): Soon<ResponseObject | null>
  item(tenant: string, id: string): Soon<StoredItem | null>
  conversation(tenant: string, id: string): Soon<Conversation | null>
  input(tenant: string, id: string): Soon<readonly StoredItem[] | null>
  add(
    tenant: string,
    before: Conversation,
    input: readonly StoredItem[],
    response: ResponseObject,
  ): Soon<void>
  delete(tenant: string, id: string): Soon<boolean>
}

/** Of one tenant. */
interface Shelf {
  /** The one that was used longest ago first. */
  kept: Map<string, Kept>
  /** Those of answers, by their names. */
  items: Map<string, StoredItem>
  bytes: number
}

export class ResponseStore implements KeepsResponses {
  readonly #most: number
  readonly #mostBytes: number
  readonly #shelves = new Map<string, Shelf>()
  #count = 0
  #bytes = 0

  constructor({ most = MOST, mostBytes = MOST_BYTES }: ResponseStoreOptions = {}) {
    this.#most = most
    this.#mostBytes = mostBytes
  }

  /** Responses are kept at all. */
  get keeps(): boolean {
    return this.#most > 0 && this.#mostBytes > 0
  }

  get size(): number {
    return this.#count
  }
  /** Conversations that kept responses go on from included. */
  get bytes(): number {
    return this.#bytes
  }

  has(tenant: string, id: string): boolean {
    return this.#shelves.get(tenant)?.kept.has(id) ?? false
  }

  get(tenant: string, id: string): ResponseObject | null {
    return this.#used(tenant, id)?.response ?? null
  }

  /** An item of a response that is kept. */
  item(tenant: string, id: string): StoredItem | null {
    return this.#shelves.get(tenant)?.items.get(id) ?? null
  }

  /** All that was said up to a response, its answer included; null: it is not kept. */
  conversation(tenant: string, id: string): Conversation | null {
    const kept = this.#used(tenant, id)
    if (kept === null) return null
    const turns: Turn[] = []
    for (let turn: Turn | null = kept.turn; turn !== null; turn = turn.before) turns.push(turn)
    return { items: turns.reverse().flatMap(({ items }) => items), last: id, turn: kept.turn }
  }

  /** What a response answered, without its answer. */
  input(tenant: string, id: string): readonly StoredItem[] | null {
    const conversation = this.conversation(tenant, id)
    if (conversation === null) return null
    return conversation.items.slice(0, conversation.items.length - this.get(tenant, id)!.output.length)
  }

  /** `input`: what it added to the conversation `before` it. */
  add(tenant: string, before: Conversation, input: readonly StoredItem[], response: ResponseObject): void {
    if (!this.keeps) return
    this.delete(tenant, response.id)
    const output = response.output as readonly StoredItem[]
    const items = [...input, ...output]
    const turn = { before: before.turn, items, bytes: bytesOf(items), holders: 0 }
    const bytes = bytesOf({ ...response, output: [] }) + ENTRY_BYTES
    const shelf = this.#shelf(tenant)
    shelf.kept.set(response.id, { response, turn, bytes })
    for (const item of output) shelf.items.set(item.id!, item)
    this.#count++
    this.#weigh(shelf, bytes)
    this.#hold(shelf, turn)
    while (this.#count > this.#most || this.#bytes > this.#mostBytes) this.#dropOne()
  }

  /** Whether there was one. */
  delete(tenant: string, id: string): boolean {
    const shelf = this.#shelves.get(tenant)
    const kept = shelf?.kept.get(id)
    if (shelf === undefined || kept === undefined) return false
    shelf.kept.delete(id)
    for (const item of kept.response.output as readonly StoredItem[]) shelf.items.delete(item.id!)
    this.#count--
    this.#weigh(shelf, -kept.bytes)
    this.#release(shelf, kept.turn)
    if (shelf.kept.size === 0) this.#shelves.delete(tenant)
    return true
  }

  #shelf(tenant: string): Shelf {
    const shelf = this.#shelves.get(tenant) ?? { kept: new Map(), items: new Map(), bytes: 0 }
    this.#shelves.set(tenant, shelf)
    return shelf
  }

  #hold(shelf: Shelf, last: Turn): void {
    for (let turn: Turn | null = last; turn !== null; turn = turn.before) {
      if (turn.holders++ > 0) return
      // Also one that was let go of while its answer was on the way.
      this.#weigh(shelf, turn.bytes)
    }
  }

  #release(shelf: Shelf, last: Turn): void {
    for (let turn: Turn | null = last; turn !== null; turn = turn.before) {
      if (--turn.holders > 0) return
      this.#weigh(shelf, -turn.bytes)
    }
  }

  #weigh(shelf: Shelf, bytes: number): void {
    shelf.bytes += bytes
    this.#bytes += bytes
  }

  #used(tenant: string, id: string): Kept | null {
    const shelf = this.#shelves.get(tenant)
    const kept = shelf?.kept.get(id)
    if (shelf === undefined || kept === undefined) return null
    shelf.kept.delete(id)
    shelf.kept.set(id, kept)
    return kept
  }

  #dropOne(): void {
    let fullest = ""
    let most = -1
    for (const [tenant, { bytes }] of this.#shelves) {
      if (bytes <= most) continue
      fullest = tenant
      most = bytes
    }
    const [oldest] = this.#shelves.get(fullest)!.kept.keys()
    this.delete(fullest, oldest!)
  }
}

function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value))
}
