using System.Diagnostics;
using Microsoft.Playwright;
using Tensormesh.TestKit;
using static Microsoft.Playwright.Assertions;

namespace Tensormesh.Console.Tests;

/// <summary>The whole product on a dev cluster with its real node, seen by a customer who has a terminal and a browser.</summary>
public sealed class ClusterStoryTests
{
    private const string Account = "nova";

    private const string Setting = """
        apiVersion: v1
        kind: Namespace
        metadata: {name: nova-lab, labels: {tensormesh.ai/account: nova}}
        ---
        apiVersion: tensormesh.ai/v1alpha1
        kind: BillingAccount
        metadata: {name: nova}
        spec: {displayName: Nova Lab, timeZone: Europe/Berlin}
        ---
        apiVersion: tensormesh.ai/v1alpha1
        kind: PriceBook
        metadata: {name: list-prices}
        spec:
          gpus:
          - {product: NVIDIA-H100-80GB-HBM3, perHour: "100.00"}
        """;

    private const string Work = """
        apiVersion: tensormesh.ai/v1alpha1
        kind: GpuDeployment
        metadata: {name: night-sky, namespace: nova-lab}
        spec:
          replicas: 1
          gpu: {count: 2, product: NVIDIA-H100-80GB-HBM3}
          template:
            spec:
              terminationGracePeriodSeconds: 5
              containers:
              - name: main
                image: tensormesh.ai/workload:dev
                imagePullPolicy: IfNotPresent
                command: [sh, -c, 'trap "exit 0" TERM; while :; do sleep 1 & wait $!; done']
        """;

    private static readonly LocatorAssertionsToBeVisibleOptions Soon = new() { Timeout = 180_000 };

    private DevCluster cluster = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_customer_is_refused_adds_a_card_and_balance_watches_the_work_runs_out_and_tops_up()
    {
        cluster = await DevCluster.StartAsync(new DevClusterOptions(), System.Console.WriteLine, Cancellation);
        await using var end = cluster;
        await using var product = await Installation.StartAsync(cluster, InstallationOptions.Quick, System.Console.WriteLine, Cancellation);
        await using var chromium = await Chromium.StartAsync(System.Console.WriteLine, Cancellation);
        await ApplyAsync(Setting);
        await KubectlAsync(null, "wait", "--for=condition=Ready", "billingaccount/nova", "pricebook/list-prices", "--timeout=120s");

        var (refused, why) = await TryKubectlAsync(Work, "apply", "-f", "-");
        Assert.NotEqual(0, refused);
        Assert.Contains("no valid card", why, StringComparison.Ordinal);

        var page = await (await chromium.Browser.NewContextAsync()).NewPageAsync();
        await ConsoleSite.SignInAsync(page, product.WebUrl, Account, "USER/OWNER");
        await Expect(page.Locator("[data-test=refusal]")).ToContainTextAsync("no valid card");
        await page.GetByRole(AriaRole.Link, new() { Name = "Payment Methods" }).ClickAsync();
        await page.GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        await page.GetByRole(AriaRole.Dialog).GetByText("ending 4242").ClickAsync();
        await page.GetByRole(AriaRole.Dialog).GetByRole(AriaRole.Button, new() { Name = "Add Card" }).ClickAsync();
        await Expect(page.Locator("[data-test=card]")).ToContainTextAsync("Visa");
        await page.GetByRole(AriaRole.Link, new() { Name = "Overview" }).ClickAsync();
        await AddBalanceAsync(page, "3");
        await Expect(page.Locator("[data-test=balance] .amount")).ToHaveAttributeAsync("data-amount", "3.00");
        await Expect(page.Locator("[data-test=refusal]")).ToHaveCountAsync(0);

        await ApplyAsync(Work);
        await Expect(page.Locator("[data-test=running]").GetByText("night-sky")).ToBeVisibleAsync(Soon);
        await Expect(page.Locator("[data-test=burn] .amount")).ToHaveAttributeAsync("data-amount", "200.00");
        // No reload: the page tells by itself, down to nothing.
        var seen = new SortedSet<decimal>();
        var began = Stopwatch.GetTimestamp();
        while (!seen.Contains(0))
        {
            Assert.True(Stopwatch.GetElapsedTime(began) < TimeSpan.FromMinutes(3), $"the balance never came to nothing: {string.Join(' ', seen)}");
            seen.Add(Figures.Number((await page.Locator("[data-test=balance] .amount").GetAttributeAsync("data-amount"))!));
            await page.WaitForTimeoutAsync(200);
        }

        Assert.True(seen.Count > 10, string.Join(' ', seen));
        await Expect(page.Locator("[data-test=running]")).ToHaveCountAsync(0, new() { Timeout = 60_000 });
        await page.GetByRole(AriaRole.Link, new() { Name = "Deployments", Exact = true }).ClickAsync();
        await Expect(page.Locator("[data-test=run]").GetByText("The balance was used up")).ToBeVisibleAsync(Soon);
        var run = page.Locator("[data-test=run]").First;
        await Expect(run).ToContainTextAsync("gpu-a");
        await Expect(run.Locator(".amount").Last).ToHaveAttributeAsync("data-amount", "3.00");

        await page.GetByRole(AriaRole.Link, new() { Name = "Billing", Exact = true }).ClickAsync();
        await AddBalanceAsync(page, "25");
        await Expect(page.Locator("[data-test=running]").GetByText("night-sky")).ToBeVisibleAsync(Soon);
        await KubectlAsync(null, "delete", "gpudeployment/night-sky", "-n", "nova-lab", "--timeout=180s");
        await Expect(page.Locator("[data-test=running]")).ToHaveCountAsync(0, new() { Timeout = 60_000 });
    }

    private static async Task AddBalanceAsync(IPage page, string amount)
    {
        await page.GetByRole(AriaRole.Button, new() { Name = "Add Balance" }).ClickAsync();
        var dialog = page.GetByRole(AriaRole.Dialog);
        await dialog.GetByLabel("Amount in US dollars").FillAsync(amount);
        await dialog.GetByRole(AriaRole.Button, new() { Name = "Continue" }).ClickAsync();
        await dialog.GetByRole(AriaRole.Button, new() { Name = $"Pay ${amount}.00" }).ClickAsync();
        await Expect(dialog).ToHaveCountAsync(0);
    }

    private Task ApplyAsync(string yaml) => KubectlAsync(yaml, "apply", "-f", "-");

    private async Task KubectlAsync(string? input, params string[] arguments)
    {
        var (exitCode, output) = await TryKubectlAsync(input, arguments);
        Assert.True(exitCode == 0, $"kubectl {string.Join(' ', arguments)}: {output}");
    }

    private async Task<(int ExitCode, string Output)> TryKubectlAsync(string? input, params string[] arguments)
    {
        var start = new ProcessStartInfo("kubectl", ["--kubeconfig", cluster.KubeconfigPath, .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        using var process = Process.Start(start)!;
        var (output, error) = (process.StandardOutput.ReadToEndAsync(Cancellation), process.StandardError.ReadToEndAsync(Cancellation));
        if (input is not null) await process.StandardInput.WriteAsync(input);
        process.StandardInput.Close();
        await process.WaitForExitAsync(Cancellation);
        return (process.ExitCode, await output + await error);
    }
}
