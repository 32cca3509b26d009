// What the AI SDK of a version makes of a history: it must be one of its own, and is turned into what a model is told.
const { version, messages } = JSON.parse(process.argv[2]);
const { convertToModelMessages, validateUIMessages } = await import(`ai-${version}`);

await validateUIMessages?.({ messages }); // 5.0.0 has none
console.log(JSON.stringify({ asked: await convertToModelMessages(messages, { ignoreIncompleteToolCalls: version[0] === "5" }) }));
