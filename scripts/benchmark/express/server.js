// The same protocol in the fewest lines: Express 5, jsonwebtoken, the mongodb driver and the openai package.
import cors from 'cors';
import express from 'express';
import jwt from 'jsonwebtoken';
import { MongoClient } from 'mongodb';
import OpenAI from 'openai';

const { JWT_SECRET, MONGODB_DATABASE, MONGODB_URI, OPENAI_API_KEY, OPENAI_BASE_URL, OPENAI_MODEL, PORT } = process.env;
const client = await new MongoClient(MONGODB_URI).connect();
const messages = client.db(MONGODB_DATABASE).collection('messages');
const openai = new OpenAI({ apiKey: OPENAI_API_KEY, baseURL: OPENAI_BASE_URL });

const app = express();
app.disable('x-powered-by');
app.use(cors({ origin: ['http://localhost:19006'], credentials: true }));

function signedIn(request, response, next) {
  const token = request.query.access_token ?? request.get('authorization')?.replace(/^Bearer /, '');
  try {
    request.user = jwt.verify(token, JWT_SECRET, { algorithms: ['HS256'] });
  } catch {
    response.status(401).json({ message: 'Unauthorized' });
    return;
  }
  next();
}

app.get('/health', (request, response) => response.send('ok'));

app.get('/api/v1/chat/conversations/:id/stream', signedIn, async (request, response) => {
  const conversationId = request.params.id;
  const send = (type, fields) =>
    response.write(`data: ${JSON.stringify({ type, timestamp: new Date().toISOString(), ...fields })}\n\n`);
  response.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no' });
  send('connected');
  const heartbeats = setInterval(() => send('heartbeat'), 30_000);
  const asking = new AbortController();
  response.on('close', () => asking.abort());
  try {
    const question = await messages.findOne({ conversationId, role: 'user' }, { sort: { createdAt: -1 } });
    const chunks = await openai.chat.completions.create(
      {
        model: OPENAI_MODEL ?? 'gpt-4',
        messages: [
          { role: 'system', content: 'You are a helpful sports betting assistant.' },
          { role: 'user', content: question?.content ?? '' },
        ],
        stream: true,
      },
      { signal: asking.signal },
    );
    let whole = '';
    for await (const chunk of chunks) {
      const content = chunk.choices[0]?.delta?.content;
      if (content) {
        whole += content;
        send('llm_chunk', { content });
      }
    }
    send('llm_complete', { content: whole });
    await messages.insertOne({ conversationId, role: 'assistant', content: whole, createdAt: new Date() });
  } catch (error) {
    send('error', { message: 'Failed to generate response', error: error.message });
  } finally {
    clearInterval(heartbeats);
    response.end();
  }
});

app.listen(Number(PORT), '127.0.0.1');
