/** Responses that several processes keep together: their parent has them, so that any of them finds what another has made, and the
 * bounds are those of all. What it has not, parents of gateways on other machines are asked for. */
import { z } from "zod"
import type { Hub } from "../../siblings/hub.ts"
import { ALIVE } from "../../siblings/messages.ts"
import type { Siblings } from "../../siblings/siblings.ts"
import type { ResponseObject } from "./format.ts"
import type { StoredItem } from "./schema.ts"
import { type Conversation, type KeepsResponses, NO_CONVERSATION, type ResponseStore } from "./store.ts"

interface OfId {
  tenant: string
  id: string
}

const ofId = z.object({ tenant: z.string(), id: z.string() })
const items = z.array(z.looseObject({ type: z.string() }))

interface Added {
  tenant: string
  /** The response before it; null: it is a conversation's first. */
  last: string | null
  input: readonly StoredItem[]
  response: ResponseObject
}

export class SharedResponses implements KeepsResponses {
  readonly keeps: boolean
  readonly #siblings: Siblings

  /** `keeps`: responses are kept at all. */
  constructor(siblings: Siblings, keeps: boolean) {
    this.keeps = keeps
    this.#siblings = siblings
  }

  has(tenant: string, id: string): Promise<boolean> {
    return this.#ask("has", { tenant, id })
  }
  get(tenant: string, id: string): Promise<ResponseObject | null> {
    return this.#ask("get", { tenant, id })
  }
  item(tenant: string, id: string): Promise<StoredItem | null> {
    return this.#ask("item", { tenant, id })
  }
  input(tenant: string, id: string): Promise<readonly StoredItem[] | null> {
    return this.#ask("input", { tenant, id })
  }
  async delete(tenant: string, id: string): Promise<boolean> {
    return (await this.#ask<boolean | null>("delete", { tenant, id })) ?? false
  }

  async conversation(tenant: string, id: string): Promise<Conversation | null> {
    const items = await this.#ask<readonly StoredItem[] | null>("conversation", { tenant, id })
    return items === null ? null : { items, last: id, turn: null }
  }

  async add(
    tenant: string,
    before: Conversation,
    input: readonly StoredItem[],
    response: ResponseObject,
  ): Promise<void> {
    const knows = await this.#ask<boolean>("add", { tenant, last: before.last, input, response })
    if (knows) return
    // What came before was let go of while the answer was on its way.
    const all = [...before.items, ...input]
    await this.#ask("add", { tenant, last: null, input: all, response })
  }

  #ask<T>(what: string, asked: OfId | Added): Promise<T> {
    return this.#siblings.ask<T>(nameOf(what), asked)
  }
}

/** The parent's side. */
export function keepTogether(hub: Hub, store: ResponseStore): void {
  const on = <A>(what: string, answer: (asked: A) => unknown) =>
    hub.answers(nameOf(what), answer as (asked: never) => unknown)
  /** What another process added a moment ago may be on its way still: all that each has sent is here before its next answer. */
  const here = async <T>(look: (asked: OfId) => T | null, asked: OfId): Promise<T | null> => {
    const found = look(asked)
    if (found !== null) return found
    await hub.askAll(ALIVE, null)
    return look(asked)
  }
  /** `isOne`: what another gateway answers is an answer to that. */
  const anywhere = <T>(
    what: string,
    look: (asked: OfId) => T | null,
    isOne: (answer: unknown, asked: OfId) => boolean,
  ) => {
    hub.answersElsewhere(nameOf(what), (asked) => here(look, ofId.parse(asked)))
    on(what, async (asked: OfId): Promise<unknown> => {
      const found = await here(look, asked)
      if (found !== null || hub.elsewhere === null) return found
      const answers = await hub.elsewhere.ask(nameOf(what), asked)
      return answers.find((answer) => isOne(answer, asked)) ?? null
    })
  }
  const isItem = (answer: unknown, { id }: OfId) => (answer as { id?: unknown } | null)?.id === id
  const areItems = (answer: unknown) => items.safeParse(answer).success
  on("has", ({ tenant, id }: OfId) => store.has(tenant, id))
  anywhere("get", ({ tenant, id }) => store.get(tenant, id), isItem)
  anywhere("item", ({ tenant, id }) => store.item(tenant, id), isItem)
  anywhere("input", ({ tenant, id }) => store.input(tenant, id), areItems)
  anywhere(
    "delete",
    ({ tenant, id }) => store.delete(tenant, id) || null,
    (answer) => answer === true,
  )
  anywhere("conversation", ({ tenant, id }) => store.conversation(tenant, id)?.items ?? null, areItems)
  on("add", ({ tenant, last, input, response }: Added) => {
    const before = last === null ? NO_CONVERSATION : store.conversation(tenant, last)
    if (before === null) return false
    store.add(tenant, before, input, response)
    return true
  })
}

const nameOf = (what: string) => `responses: ${what}`
