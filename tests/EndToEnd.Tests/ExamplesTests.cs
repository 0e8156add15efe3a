using System.Net.Http.Headers;
using System.Net.Http.Json;
using Tensormesh.TestKit;

namespace Tensormesh.EndToEnd.Tests;

[Collection("one product at a time")]
public sealed class ExamplesTests(ProductFixture fixture) : IClassFixture<ProductFixture>
{
    private static CancellationToken Ends => TestContext.Current.CancellationToken;

    public static TheoryData<string> Deployments()
        => [.. Directory.EnumerateFiles(Repository.Folder("manifests", "examples"), "gpudeployment*.yaml").Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];

    [Theory]
    [MemberData(nameof(Deployments))]
    public async Task An_example_applied_as_it_stands_runs(string file)
    {
        foreach (var setting in (string[])["account.yaml", "namespace.yaml", "pricebook.yaml"]) await Kubectl.RunAsync(fixture.Cluster, "apply", "-f", Example(setting));
        await Kubectl.RunAsync(fixture.Cluster, "wait", "--for=condition=Ready", "billingaccount/acme", "pricebook/list-prices", "--timeout=120s");
        await PostAsync("v1/billing/stripe/customers/payment-methods", new { userId = "acme", stripePaymentMethodId = "pm_card_visa" });
        await PostAsync("v1/admin/billing/balances:add", new { targetUserId = "acme", amount = new { currencyCode = "USD", units = "5", nanos = 0 } });

        await Kubectl.RunAsync(fixture.Cluster, "apply", "-f", Example(file));
        try
        {
            await Kubectl.RunAsync(fixture.Cluster, "wait", "--for=condition=Ready", "-f", Example(file), "--timeout=200s");
        }
        finally
        {
            await Kubectl.RunAsync(fixture.Cluster, "delete", "-f", Example(file), "--timeout=200s");
        }
    }

    private static string Example(string file) => Repository.Folder("manifests", "examples", file);

    private async Task PostAsync(string path, object body)
    {
        using var http = new HttpClient { BaseAddress = fixture.Product.WebUrl };
        http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", fixture.Product.AdminToken);
        using var answer = await http.PostAsJsonAsync(path, body, Ends);
        Assert.True(answer.IsSuccessStatusCode, $"{path}: {(int)answer.StatusCode} {await answer.Content.ReadAsStringAsync(Ends)}");
    }
}
