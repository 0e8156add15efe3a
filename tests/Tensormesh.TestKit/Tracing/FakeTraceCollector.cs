using System.Collections.Concurrent;
using System.Globalization;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace Tensormesh.TestKit;

/// <summary>A finished span, as it was sent. Ids are in hexadecimal.</summary>
/// <param name="Parent">Empty where it begins its trace, or its part of one.</param>
/// <param name="Links">Span ids.</param>
public sealed record SentSpan(
    string Service, string Scope, string Name, string Trace, string Id, string Parent, IReadOnlyDictionary<string, string> Attributes, IReadOnlyList<string> Links);

/// <summary>Takes in what OpenTelemetry's exporter sends (OTLP, protobuf over HTTP) and keeps it.</summary>
public sealed class FakeTraceCollector : IAsyncDisposable
{
    private readonly ConcurrentQueue<SentSpan> spans = new();
    private readonly WebApplication app;

    private FakeTraceCollector()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        app = builder.Build();
        app.MapPost("/v1/traces", TakeAsync);
    }

    public static async Task<FakeTraceCollector> StartAsync()
    {
        var collector = new FakeTraceCollector();
        await collector.app.StartAsync();
        return collector;
    }

    /// <summary>Environment of a process that is to send here, and soon.</summary>
    public IReadOnlyDictionary<string, string> Environment => new Dictionary<string, string>
    {
        ["OTEL_EXPORTER_OTLP_ENDPOINT"] = app.Urls.Single(),
        ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
        ["OTEL_BSP_SCHEDULE_DELAY"] = "100",
    };

    public IReadOnlyList<SentSpan> Spans => [.. spans];

    private async Task TakeAsync(HttpRequest request)
    {
        using var body = new MemoryStream();
        await request.Body.CopyToAsync(body, request.HttpContext.RequestAborted);
        foreach (var span in Read(body.ToArray())) spans.Enqueue(span);
    }

    /// <summary>An ExportTraceServiceRequest: resource spans (1), each with a resource (1) and scope spans (2), each with a scope (1) and spans (2).</summary>
    private static IEnumerable<SentSpan> Read(byte[] request) =>
        from resource in Message.Read(request).All(1).Select(Message.Read)
        let service = Attributes(resource.All(1).Select(Message.Read).First().All(1)).GetValueOrDefault("service.name", "")
        from scope in resource.All(2).Select(Message.Read)
        let name = scope.All(1).Select(Message.Read).First().Text(1)
        from span in scope.All(2).Select(Message.Read)
        select new SentSpan(
            service, name, span.Text(5), span.Hex(1), span.Hex(2), span.Hex(4), Attributes(span.All(9)), [.. span.All(13).Select(link => Message.Read(link).Hex(2))]);

    /// <summary>Pairs of a key (1) and a value (2), of which text (1), truth (2) and whole numbers (3) are read.</summary>
    private static Dictionary<string, string> Attributes(IEnumerable<byte[]> pairs) => pairs.Select(Message.Read).GroupBy(pair => pair.Text(1)).ToDictionary(pair => pair.Key, pair =>
    {
        var value = pair.First().All(2).Select(Message.Read).FirstOrDefault();
        return value is null ? "" : value.All(1).Any() ? value.Text(1) : (value.Number(3) ?? value.Number(2))?.ToString(CultureInfo.InvariantCulture) ?? "";
    });

    public ValueTask DisposeAsync() => app.DisposeAsync();

    /// <summary>A protobuf message without its schema: fields by number.</summary>
    private sealed class Message(List<(int Field, ulong Number, byte[]? Bytes)> fields)
    {
        private const int Varint = 0, Fixed64 = 1, Lengthy = 2, Fixed32 = 5;

        public static Message Read(byte[] bytes)
        {
            var fields = new List<(int, ulong, byte[]?)>();
            for (var at = 0; at < bytes.Length;)
            {
                var key = ReadVarint(bytes, ref at);
                var field = (int)(key >> 3);
                switch ((int)(key & 7))
                {
                    case Varint:
                        fields.Add((field, ReadVarint(bytes, ref at), null));
                        break;
                    case Fixed64:
                        at += 8;
                        break;
                    case Fixed32:
                        at += 4;
                        break;
                    case Lengthy:
                        var length = (int)ReadVarint(bytes, ref at);
                        fields.Add((field, 0, bytes[at..(at + length)]));
                        at += length;
                        break;
                    default:
                        throw new InvalidDataException($"field {field} is of a kind that is not read here");
                }
            }

            return new Message(fields);
        }

        public IEnumerable<byte[]> All(int field) => fields.Where(each => each.Field == field && each.Bytes is not null).Select(each => each.Bytes!);

        public string Text(int field) => Encoding.UTF8.GetString(All(field).FirstOrDefault() ?? []);

        public string Hex(int field) => Convert.ToHexStringLower(All(field).FirstOrDefault() ?? []);

        public long? Number(int field) => fields.Where(each => each.Field == field && each.Bytes is null).Select(each => (long?)each.Number).FirstOrDefault();

        private static ulong ReadVarint(byte[] bytes, ref int at)
        {
            ulong value = 0;
            for (var shift = 0; ; shift += 7)
            {
                value |= (ulong)(bytes[at] & 0x7f) << shift;
                if ((bytes[at++] & 0x80) == 0) return value;
            }
        }
    }
}
