/** Which addresses a backend's name stands for: a name with several (a headless service) is as many backends. */
import { lookup as systemLookup } from "node:dns/promises"
import { isIP } from "node:net"
import type { BackendConfig } from "../../config/backends.ts"

/** One backend to connect to. */
export interface Endpoint {
  config: BackendConfig
  /** Unique among backends: what is connected to. */
  url: string
  /** The name that it was found by, where that is not in the URL. */
  host: string | null
}

export type Lookup = (name: string) => Promise<readonly { address: string; family: number }[]>

const lookupAll: Lookup = (name) => systemLookup(name, { all: true })

/** In order. Of both families those of IPv4: one machine often has an address of each. Rejects where the name is not known. */
export async function addressesOf(name: string, lookup: Lookup = lookupAll): Promise<string[]> {
  if (isIP(name) !== 0) return [name]
  const found = await lookup(name)
  const fours = found.filter(({ family }) => family === 4)
  return [...new Set((fours.length > 0 ? fours : found).map(({ address }) => address))].sort()
}

/** A name that cannot be looked up stands for itself: it is tried as it is, and says what is wrong. */
export async function endpointsOf(config: BackendConfig, lookup?: Lookup): Promise<Endpoint[]> {
  const itself: Endpoint = { config, url: config.url, host: null }
  const url = new URL(config.url)
  const name = url.hostname.replace(/^\[|\]$/g, "")
  let one: string[]
  try {
    one = await addressesOf(name, lookup)
  } catch {
    return [itself]
  }
  if (one.length < 2 || one.some(isLoopback)) return [itself]
  return one.map((address) => {
    const own = new URL(config.url)
    own.hostname = address.includes(":") ? `[${address}]` : address
    return { config, url: own.origin + url.pathname.replace(/\/$/, ""), host: url.host }
  })
}

export function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1"
}
