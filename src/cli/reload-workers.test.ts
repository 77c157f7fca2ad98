/** SIGHUP to a server with worker processes: what only they do with it. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { expect, it } from "vitest"
import { complete, folder, keys, serve } from "./reload-testing.ts"

const TOKENS = 8
/** The share is that of the latest answers. By then what was served before may still count, longer where little is known of how
 * large requests are (core/learn/tenants.ts): they are asked for until it is as it should be, or so many were. */
const [ANSWERS, MOST_ANSWERS] = [120, 2000]
/** Of each tenant under way: more than run at once, so that weights decide which come next. */
const AT_ONCE = 12

/** Two tenants that each have as many requests under way; which share of the answers is the second's. */
async function flooded(url: string, isSo: (share: number) => boolean): Promise<number> {
  const answered: string[] = []
  let asked = 0
  const share = () => answered.slice(-ANSWERS).filter((key) => key === "sk-b").length / ANSWERS
  const isOver = () => answered.length >= ANSWERS && isSo(share())
  const client = async (key: string) => {
    while (asked++ < MOST_ANSWERS && !isOver()) {
      const answer = await complete(url, key, { max_tokens: TOKENS, ignore_eos: true })
      expect(answer.status).toBe(200)
      await answer.text()
      if (!isOver()) answered.push(key)
    }
  }
  const clients = ["sk-a", "sk-b"].flatMap((key) => Array.from({ length: AT_ONCE }, () => client(key)))
  await Promise.all(clients)
  return share()
}
const isSmall = (share: number) => share < 0.35
const isLarge = (share: number) => share > 0.65

/** Of the worker of this name, as the server's log has it when it is ready. */
const processOf = (name: string, said: string) =>
  Number(new RegExp(`replica ${name} is ready \\(process (\\d+)\\)`).exec(said)![1])

async function replica(url: string, name: string): Promise<{ state: string; restarts: number }> {
  const status = (await (await fetch(`${url}/v1/slo/status`)).json()) as {
    replicas: { name: string; state: string; restarts: number }[]
  }
  return status.replicas.find((one) => one.name === name)!
}

const weights = (a: number, b: number) => `tenants: {a: {weight: ${a}}, b: {weight: ${b}}}\n`

it("each worker serves tenants by their new weights, and so does one that is started again while the file is wrong", async () => {
  const path = join(folder, "weights.yaml")
  writeFileSync(path, `${keys("a", "b")}${weights(6, 1)}`)
  const { child, url, exit, hup, said } = await serve(
    ...["--config", path, "--replicas", "2", "--max-sequences", "4"],
  )
  expect(await flooded(url, isSmall)).toSatisfy(isSmall)
  writeFileSync(path, `${keys("a", "b")}${weights(1, 6)}`)
  expect(await hup()).toContain("changed: tenants")
  expect(await flooded(url, isLarge)).toSatisfy(isLarge)
  writeFileSync(path, `${keys("a", "b")}tenants: {a: {weight: `)
  for (const name of ["w0", "w1"]) {
    process.kill(processOf(name, said()), "SIGKILL")
    await expect.poll(() => replica(url, name)).toMatchObject({ restarts: 1, state: "ready" })
  }
  expect(await flooded(url, isLarge)).toSatisfy(isLarge)
  child.kill("SIGTERM")
  expect(await exit).toBe(0)
}, 240_000)

it("a worker that is started again knows as many classes as its server", async () => {
  const path = join(folder, "classes.yaml")
  const classes = (...names: string[]) =>
    `classes:\n${names.map((name) => `  ${name}: {tpot: 90ms}\n`).join("")}`
  const first = Array.from({ length: 12 }, (_, i) => `first-${i}`)
  writeFileSync(path, `${classes(...first)}${keys("a")}`)
  const { child, url, exit, hup, said } = await serve("--config", path, "--replicas", "2")
  const next = Array.from({ length: 16 }, (_, i) => `next-${i}`)
  writeFileSync(path, `${classes(...next)}${keys("a")}`)
  expect(await hup()).toContain("changed: classes")
  for (const name of ["w0", "w1"]) {
    process.kill(processOf(name, said()), "SIGKILL")
    await expect.poll(() => replica(url, name)).toMatchObject({ restarts: 1, state: "ready" })
  }
  const answers = await Promise.all(next.map((name) => complete(url, "sk-a", { slo: { class: name } })))
  expect(answers.map(({ status }) => status)).toEqual(next.map(() => 200))
  for (const answer of answers) expect(await answer.text()).toContain('"finish_reason":"length"')
  for (const name of ["w0", "w1"])
    expect(await replica(url, name)).toMatchObject({ restarts: 1, state: "ready" })
  child.kill("SIGTERM")
  expect(await exit).toBe(0)
}, 240_000)
