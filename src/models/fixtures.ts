/** For tests of the models folder: a hub and a package index on this machine, and wheels made by hand. */
import { chmod, mkdir, open, writeFile } from "node:fs/promises"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { crc32 } from "node:zlib"
import { writeGguf } from "./gguf-writer.ts"
import { type TinySpec, tinyContent } from "./tiny.ts"

/** A zip of stored (uncompressed) files: a wheel. */
export function zipOf(files: Readonly<Record<string, Buffer>>): Buffer {
  const local: Buffer[] = []
  const central: Buffer[] = []
  let offset = 0
  for (const [name, content] of Object.entries(files)) {
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt32LE(crc32(content), 10)
    common.writeUInt32LE(content.length, 14)
    common.writeUInt32LE(content.length, 18)
    common.writeUInt16LE(Buffer.byteLength(name), 22)
    const entry = Buffer.concat([Buffer.from("PK\x03\x04"), common, Buffer.from(name), content])
    const tail = Buffer.alloc(14)
    tail.writeUInt32LE(offset, 10)
    central.push(Buffer.concat([Buffer.from("PK\x01\x02\x14\x00"), common, tail, Buffer.from(name)]))
    local.push(entry)
    offset += entry.length
  }
  const directory = Buffer.concat(central)
  const end = Buffer.alloc(18)
  end.writeUInt16LE(central.length, 4)
  end.writeUInt16LE(central.length, 6)
  end.writeUInt32LE(directory.length, 8)
  end.writeUInt32LE(offset, 12)
  return Buffer.concat([...local, directory, Buffer.from("PK\x05\x06"), end])
}

export interface FakeHub {
  url: string
  /** Paths asked for, in order, and which bytes of them. */
  asked: string[]
  ranges?: string[]
  close(): Promise<void>
}

/** Serves files as the model hub does (`/owner/repo/resolve/revision/path`), with ranges. */
export async function fakeHub(
  files: Readonly<Record<string, Buffer>>,
  options: {
    truncate?: boolean
    /** Instead of "e". */
    etag?: (path: string) => string
    /** Breaks off the first answer that comes to this byte. */
    breakAt?: number
  } = {},
): Promise<FakeHub> {
  const asked: string[] = []
  const ranges: string[] = []
  let { breakAt } = options
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url!.split("?")[0]!)
    asked.push(path)
    ranges.push(request.headers.range ?? "")
    const content = files[path]
    if (!content) {
      response.writeHead(404, { "X-Error-Code": "EntryNotFound" }).end()
      return
    }
    const range = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "")
    const from = range ? Number(range[1]) : 0
    const to = range?.[2] ? Number(range[2]) : content.length - 1
    const body = content.subarray(from, to + 1)
    response.writeHead(range ? 206 : 200, {
      etag: options.etag?.(path) ?? '"e"',
      "content-length": body.length,
      ...(range ? { "content-range": `bytes ${from}-${to}/${content.length}` } : {}),
    })
    if (breakAt !== undefined && from <= breakAt && to > breakAt && body.length > 1) {
      response.write(body.subarray(0, breakAt - from), () => response.destroy())
      breakAt = undefined
    } else if (options.truncate && body.length > 1) {
      response.write(body.subarray(0, body.length >> 1), () => response.destroy())
    } else response.end(body)
  })
  return { url: await listen(server), asked, ranges, close: () => closed(server) }
}

/** A generated model in several files, as gguf-split writes them; the path of the first. */
export async function tinyInParts(
  given: TinySpec,
  folder: string,
  name: string,
  count: number,
): Promise<string> {
  const { metadata, tensors } = tinyContent(given, name)
  const each = Math.ceil(tensors.length / count)
  const paths: string[] = []
  for (let no = 0; no < count; no++) {
    const number = (n: number) => String(n).padStart(5, "0")
    const path = join(folder, `${name}-${number(no + 1)}-of-${number(count)}.gguf`)
    const split = {
      ...{ "split.no": { u16: no }, "split.count": { u16: count } },
      "split.tensors.count": { i32: tensors.length },
    }
    const file = await open(path, "w")
    const own = tensors.slice(no * each, (no + 1) * each)
    await writeGguf(file, no === 0 ? { ...metadata, ...split } : split, own)
    await file.close()
    paths.push(path)
  }
  return paths[0]!
}

/** A package index that lists and serves one wheel. */
export async function fakeIndex(project: string, version: string, wheel: Buffer): Promise<FakeHub> {
  const asked: string[] = []
  const server: Server = createServer((request, response) => {
    asked.push(request.url!)
    if (request.url === `/${project}/${version}/json`) {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/file.whl`
      response.end(JSON.stringify({ urls: [{ packagetype: "bdist_wheel", url, size: wheel.length }] }))
    } else if (request.url === "/file.whl") response.end(wheel)
    else response.writeHead(404).end()
  })
  return { url: await listen(server), asked, close: () => closed(server) }
}

/** A folder for PATH whose `python3` answers `-m pip download … --dest folder …` with this wheel. */
export async function fakePip(folder: string, wheel: Buffer): Promise<string> {
  const bin = join(folder, "bin")
  await mkdir(bin, { recursive: true })
  await writeFile(join(folder, "the.whl"), wheel)
  const script = `#!${process.execPath}
const { copyFileSync } = require("node:fs")
const args = process.argv
copyFileSync(${JSON.stringify(join(folder, "the.whl"))}, args[args.indexOf("--dest") + 1] + "/the.whl")
`
  await writeFile(join(bin, "python3"), script)
  await chmod(join(bin, "python3"), 0o755)
  return bin
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function closed(server: Server): Promise<void> {
  server.closeAllConnections()
  return new Promise((resolve) => server.close(() => resolve()))
}
