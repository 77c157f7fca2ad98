/** What the mutation tester leaves alone: tests, where a pattern names them too; what is called `check…`, which are
 * tests themselves; texts of assertions, which only people read. */
export const strykerPlugins = [
  {
    kind: "Ignore",
    name: "assertions",
    value: {
      shouldIgnore(path) {
        if (path.isProgram() && path.node.body.some(({ source }) => source?.value === "vitest"))
          return "a test"
        const name = path.isClassMethod()
          ? path.node.key.name
          : path.isFunctionDeclaration()
            ? path.node.id?.name
            : undefined
        if (name?.startsWith("check")) return "an invariant check"
        const call = path.parentPath
        const isText = path.listKey === "arguments" && path.key === 1 && call.node.callee?.name === "assert"
        if (isText) return "the text of an assertion"
      },
    },
  },
]
