using System.Collections.Concurrent;
using System.Globalization;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;

namespace Tensormesh.TestKit;

/// <summary>What becomes of an event on its way.</summary>
public enum FakeStripeDelivery
{
    Normal,
    /// <summary>It comes after <see cref="FakeStripeWebhooks.Delay"/>.</summary>
    Delayed,
    /// <summary>It comes three times, two of them at once.</summary>
    Repeated,
    /// <summary>It comes after the next one, or when nothing else is left.</summary>
    Reordered,
    Lost,
}

/// <summary>Sends events to one address, signed as Stripe signs them, and again for as long as they are not taken.</summary>
public sealed class FakeStripeWebhooks(TimeProvider time) : IAsyncDisposable
{
    private const int Attempts = 8;
    private static readonly TimeSpan FirstRetry = TimeSpan.FromMilliseconds(50);

    private readonly TimeProvider time = time;
    private readonly HttpClient http = new() { Timeout = TimeSpan.FromSeconds(30) };
    private readonly Lock gate = new();
    private readonly Queue<JsonObject> held = new();
    private readonly ConcurrentBag<Task> underWay = [];
    private readonly List<JsonObject> events = [];
    private int ids;

    /// <summary>Where events go; null: nowhere.</summary>
    public Uri? Address { get; set; }

    public TimeSpan Delay { get; set; } = TimeSpan.FromMilliseconds(200);

    /// <summary>Chooses by the number of the event, counted from 0.</summary>
    public Func<int, FakeStripeDelivery> Plan { get; set; } = _ => FakeStripeDelivery.Normal;

    /// <summary>Every event so far, lost ones too.</summary>
    public IReadOnlyList<JsonObject> Events
    {
        get
        {
            lock (gate) return [.. events];
        }
    }

    /// <summary>Sends one event, as it was or anew, once.</summary>
    public async Task<HttpResponseMessage> SendAsync(JsonObject @event, CancellationToken cancellation = default)
        => await SendAsync(@event.ToJsonString(), null, cancellation);

    /// <param name="signature">Null: the right one, of now.</param>
    public async Task<HttpResponseMessage> SendAsync(string body, string? signature, CancellationToken cancellation = default)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, Address) { Content = new StringContent(body, Encoding.UTF8) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json") { CharSet = "utf-8" };
        request.Headers.TryAddWithoutValidation("Stripe-Signature", signature ?? Sign(body, time.GetUtcNow()));
        return await http.SendAsync(request, cancellation);
    }

    public static string Sign(string body, DateTimeOffset at, string secret = FakeStripe.WebhookSecret)
    {
        var stamp = at.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        var mac = HMACSHA256.HashData(Encoding.UTF8.GetBytes(secret), Encoding.UTF8.GetBytes($"{stamp}.{body}"));
        return $"t={stamp},v1={Convert.ToHexStringLower(mac)}";
    }

    /// <summary>Waits until everything that will ever arrive has arrived.</summary>
    public async Task DrainAsync()
    {
        while (true)
        {
            lock (gate)
            {
                while (held.TryDequeue(out var late)) underWay.Add(DeliverAsync(late));
            }

            var tasks = underWay.ToArray();
            await Task.WhenAll(tasks);
            lock (gate)
            {
                if (held.Count == 0 && underWay.Count == tasks.Length) return;
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        Address = null;
        try
        {
            await Task.WhenAll(underWay);
        }
        catch (HttpRequestException)
        {
            // Whoever it was for is gone already.
        }

        http.Dispose();
    }

    internal void Emit(string type, JsonObject of)
    {
        lock (gate)
        {
            var number = ids++;
            var @event = new JsonObject
            {
                ["id"] = $"evt_{number.ToString("d6", CultureInfo.InvariantCulture)}{Guid.NewGuid().ToString("n")[..10]}",
                ["object"] = "event",
                ["api_version"] = FakeStripe.ApiVersion,
                ["created"] = time.GetUtcNow().ToUnixTimeSeconds(),
                ["type"] = type,
                ["livemode"] = false,
                ["pending_webhooks"] = 1,
                ["data"] = new JsonObject { ["object"] = of },
            };
            events.Add(@event);
            if (Address is null) return;
            switch (Plan(number))
            {
                case FakeStripeDelivery.Lost:
                    return;
                case FakeStripeDelivery.Reordered:
                    held.Enqueue(@event);
                    return;
                case FakeStripeDelivery.Normal:
                    underWay.Add(DeliverAsync(@event));
                    break;
                case FakeStripeDelivery.Delayed:
                    underWay.Add(DelayAsync(@event));
                    break;
                case FakeStripeDelivery.Repeated:
                    underWay.Add(RepeatAsync(@event));
                    break;
            }

            if (held.TryDequeue(out var late)) underWay.Add(DeliverAsync(late));
        }
    }

    private async Task DelayAsync(JsonObject @event)
    {
        await Task.Delay(Delay);
        await DeliverAsync(@event);
    }

    private async Task RepeatAsync(JsonObject @event)
    {
        await Task.WhenAll(DeliverAsync(@event), DeliverAsync(@event));
        await DeliverAsync(@event);
    }

    private async Task DeliverAsync(JsonObject @event)
    {
        // Not before whoever caused it has its own answer under way.
        await Task.Yield();
        for (var attempt = 1; attempt <= Attempts && Address is not null; attempt++)
        {
            try
            {
                using var answer = await SendAsync(@event);
                if (answer.IsSuccessStatusCode) return;
            }
            catch (Exception lost) when (lost is HttpRequestException or OperationCanceledException)
            {
            }

            await Task.Delay(FirstRetry * attempt);
        }
    }
}
