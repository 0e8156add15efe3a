using System.Net.Http.Headers;
using System.Net.Http.Json;
using Npgsql;
using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

/// <summary>What walk-through.sh installed, and where it is reached.</summary>
internal sealed class InstalledProduct : IAsyncDisposable
{
    private readonly HttpClient http = new();
    private readonly NpgsqlDataSource database;
    private readonly Func<string[], Task> kubectl;
    private readonly IReadOnlyDictionary<string, string> settings;

    private InstalledProduct(NpgsqlDataSource database, IReadOnlyDictionary<string, string> settings, Func<string[], Task> kubectl)
        => (this.database, this.settings, this.kubectl) = (database, settings, kubectl);

    private static CancellationToken Ends => TestContext.Current.CancellationToken;

    /// <summary>Of the customer acme.</summary>
    public string Token => settings["TENSORMESH_TOKEN"];

    public static async Task<InstalledProduct> ReadAsync(DevCluster cluster, Func<string[], Task> kubectl)
    {
        var lines = await File.ReadAllLinesAsync(Path.Combine(cluster.StateDirectory, "story.env"), Ends);
        var settings = lines.Select(line => line["export ".Length..].Split('=', 2)).ToDictionary(parts => parts[0], parts => parts[1]);
        var uri = new Uri(settings["DATABASE_URL"]);
        return new InstalledProduct(
            NpgsqlDataSource.Create($"Host={uri.Host};Port={uri.Port};Username={uri.UserInfo};Database={uri.AbsolutePath.Trim('/')}"), settings, kubectl);
    }

    /// <summary>An account with a card and ten dollars, and two replicas of two GPUs that run and are charged.</summary>
    public async Task StartAsync()
    {
        await kubectl(["apply", "-f", "manifests/examples/account.yaml", "-f", "manifests/examples/namespace.yaml", "-f", "manifests/examples/pricebook.yaml"]);
        await kubectl(["wait", "--for=condition=Ready", "billingaccount/acme", "pricebook/list-prices", "--timeout=120s"]);
        var web = new Uri(settings["TENSORMESH_URL"]);
        await SendAsync(web, "v1/billing/stripe/customers/payment-methods", new { stripePaymentMethodId = "pm_card_visa" }, Token);
        await SendAsync(
            web, "v1/admin/billing/balances:add", new { targetUserId = "acme", amount = new { currencyCode = "USD", units = "10", nanos = 0 } }, settings["TENSORMESH_ADMIN_TOKEN"]);
        var file = Path.GetTempFileName();
        await File.WriteAllTextAsync(
            file,
            """
            apiVersion: tensormesh.ai/v1alpha1
            kind: GpuDeployment
            metadata: {name: trainer, namespace: acme-research}
            spec:
              replicas: 2
              gpu: {count: 2, product: NVIDIA-H100-80GB-HBM3}
              template:
                spec:
                  terminationGracePeriodSeconds: 5
                  containers:
                  - {name: main, image: "tensormesh.ai/workload:dev", imagePullPolicy: IfNotPresent}
            """, Ends);
        await kubectl(["apply", "-f", file]);
        File.Delete(file);
        await kubectl(["wait", "--for=condition=Ready", "gpud/trainer", "-n", "acme-research", "--timeout=180s"]);
        while (await CountAsync("run_interval where ended_at is null") < 2) await Task.Delay(TimeSpan.FromMilliseconds(100), Ends);
    }

    /// <summary>Rows of what follows "from".</summary>
    public async Task<long> CountAsync(string from)
    {
        await using var command = database.CreateCommand("select count(*) from " + from);
        return (long)(await command.ExecuteScalarAsync(Ends))!;
    }

    /// <summary>Charges are GPU-seconds times price, from the pods' own times, without looking at the ledger; and no two runs of one pod are there.</summary>
    public async Task AssertChargedExactlyAsync()
    {
        Assert.Equal(0, await CountAsync("run_interval where ended_at is null"));
        await using var command = database.CreateCommand(
            """
            select (select -sum(e.amount_nanos) from ledger_entry e join ledger_transaction t on t.position = e.transaction_position
                      join ledger_account a on a.id = e.ledger_account where a.name = 'customer:acme' and t.type in ('GpuUsage', 'GpuUsageCorrection', 'GpuFaultCredit'))
                 - (select sum(div(gpus::numeric * per_gpu_hour_nanos * (extract(epoch from least(ended_at, charge_until) - started_at) * 1000000)::bigint, 3600000000)) from run_interval)
            """);
        Assert.Equal(0m, await command.ExecuteScalarAsync(Ends));
        Assert.Equal(0, await CountAsync("(select pod from run_interval group by pod having count(*) > 1) doubled"));
    }

    public Task<(int Status, string Body)> PostAsync(Uri web, string path, object body, string token, string idempotencyKey)
        => SendAsync(new HttpRequestMessage(HttpMethod.Post, new Uri(web, path)) { Content = JsonContent.Create(body), Headers = { { "Idempotency-Key", idempotencyKey } } }, token);

    public Task<(int Status, string Body)> GetAsync(Uri web, string path, string token) => SendAsync(new HttpRequestMessage(HttpMethod.Get, new Uri(web, path)), token);

    public async ValueTask DisposeAsync()
    {
        http.Dispose();
        await database.DisposeAsync();
    }

    private async Task SendAsync(Uri web, string path, object body, string token)
    {
        var (status, answer) = await PostAsync(web, path, body, token, Guid.NewGuid().ToString());
        Assert.True(status == 200, $"{path}: {status} {answer}");
    }

    private async Task<(int Status, string Body)> SendAsync(HttpRequestMessage request, string token)
    {
        using (request)
        {
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
            using var answer = await http.SendAsync(request, Ends);
            return ((int)answer.StatusCode, await answer.Content.ReadAsStringAsync(Ends));
        }
    }
}
