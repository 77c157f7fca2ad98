/** The endpoints that may be picked: given by address or by a DNS name, listed in a file that is read again when it
 * changes, or, where none of these is given, those that the gateway names with each request. */
import { lookup } from "node:dns/promises"
import { readFile } from "node:fs/promises"
import { isIP, isIPv6 } from "node:net"
import { parse } from "yaml"
import { z } from "zod"
import { readSettled } from "../../config/settled-file.ts"
import { UserError } from "../../errors.ts"
import type { Endpoint } from "./chooser.ts"

export interface Address {
  host: string
  port: number
}

const MOST_PORT = 65_535

/** "host:port" or "[ipv6]:port". Throws UserError. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:[\]\s/]+)):(\d{1,5})$/.exec(text.trim())
  const host = match?.[1] ?? match?.[2] ?? ""
  const port = Number(match?.[3])
  const sound = match?.[1] === undefined ? host !== "" : isIPv6(host)
  if (match !== null && sound && port >= 1 && port <= MOST_PORT) return { host, port }
  const scheme = /^\w+:\/\//.test(text) ? "; leave the scheme out" : ""
  throw new UserError(`endpoint ${JSON.stringify(text.slice(0, 100))} is not host:port${scheme}`)
}

/** As Envoy names a host. */
export function endpointOf({ host, port }: Address): Endpoint {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`
}

const listed = z.strictObject({
  name: z.string().optional(),
  namespace: z.string().optional(),
  address: z.string(),
  port: z.union([z.string().regex(/^\d+$/), z.number()]),
  labels: z.record(z.string(), z.string()).optional(),
})
const fileSchema = z.object({ endpoints: z.array(z.union([z.string(), listed])) })

/** The endpoints of a file: llm-d's format (`endpoints:` with `address` and `port`), or plain "host:port" strings.
 * Throws UserError. `path` is only for messages. */
export function parseEndpoints(text: string, path: string): Address[] {
  let document: unknown
  try {
    document = parse(text, { maxAliasCount: 100 })
  } catch (error) {
    throw new UserError(`${path}: ${(error as Error).message.split("\n")[0]}`)
  }
  const read = fileSchema.safeParse(document ?? { endpoints: [] })
  if (!read.success) {
    const { path: place, message } = read.error.issues[0]!
    throw new UserError(
      `${path}: ${place.join(".") || "the file"}: ${message}; expected endpoints: [host:port, …]`,
    )
  }
  return read.data.endpoints.map((each) => {
    try {
      return parseAddress(
        typeof each === "string" ? each : endpointOf({ host: each.address, port: Number(each.port) }),
      )
    } catch (error) {
      throw new UserError(`${path}: ${(error as Error).message}`)
    }
  })
}

export interface EndpointSources {
  given: readonly Address[]
  /** null: none. */
  file: string | null
}

export type Resolve = (host: string) => Promise<string[]>

const resolveAll: Resolve = async (host) =>
  (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address)

/** Follows what names the endpoints. */
export class EndpointWatch {
  readonly #sources: EndpointSources
  readonly #resolve: Resolve
  readonly #warn: (message: string) => void
  /** What each name stood for last: a name server that is away takes no endpoint away. */
  readonly #resolved = new Map<string, string[]>()
  #listed: Address[] = []
  #text: string | null = null
  #complaints = new Map<string, string>()
  #timer: NodeJS.Timeout | null = null

  constructor(sources: EndpointSources, warn: (message: string) => void, resolve: Resolve = resolveAll) {
    this.#sources = sources
    this.#warn = warn
    this.#resolve = resolve
  }

  /** Now. A file that cannot be read the first time is a UserError; later the last one stays, with a warning. */
  async read(): Promise<Endpoint[]> {
    await this.#readFile()
    const addresses = [...this.#sources.given, ...this.#listed]
    const each = await Promise.all(addresses.map((address) => this.#endpoints(address)))
    return [...new Set(each.flat())].sort()
  }

  /** Tells each change, until `close`. */
  follow(everyMs: number, changed: (endpoints: Endpoint[]) => void, from: readonly Endpoint[]): void {
    let last = from.join()
    const again = async () => {
      const endpoints = await this.read()
      if (this.#timer === null) return
      if (endpoints.join() !== last) changed(endpoints)
      last = endpoints.join()
      this.#timer = setTimeout(again, everyMs).unref()
    }
    this.#timer = setTimeout(again, everyMs).unref()
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  async #readFile(): Promise<void> {
    const { file } = this.#sources
    if (file === null) return
    try {
      if ((await readFile(file, "utf8")) === this.#text) return
      const text = await readSettled(file)
      this.#listed = parseEndpoints(text, file)
      this.#text = text
      this.#complain(file, null)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      const what =
        error instanceof UserError ? message : `cannot read the endpoints ${file} (${code ?? message})`
      if (this.#text === null) throw new UserError(what)
      this.#complain(file, `${what}; the endpoints stay as they were`)
    }
  }

  async #endpoints({ host, port }: Address): Promise<Endpoint[]> {
    if (isIP(host) !== 0) return [endpointOf({ host, port })]
    try {
      this.#resolved.set(host, await this.#resolve(host))
      this.#complain(host, null)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      this.#complain(host, `cannot resolve ${host} (${code ?? message}); trying again`)
    }
    return (this.#resolved.get(host) ?? []).map((address) => endpointOf({ host: address, port }))
  }

  /** Once for each new fault. */
  #complain(about: string, what: string | null): void {
    if (what === null) this.#complaints.delete(about)
    else if (this.#complaints.get(about) !== what) {
      this.#complaints.set(about, what)
      this.#warn(what)
    }
  }
}
